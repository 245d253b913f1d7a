"""Where spans come from; the local Lambda's observer runs here, CloudWatch is moto's."""

import io
import json
import os
import threading
import time
import urllib.request

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.cloudwatch import CloudWatch
from dspy_lambda_infra.logs.sources import NotRunning
from dspy_lambda_infra.observed import find
from dspy_lambda_infra.traces.sources import CloudWatchSource, FileSource, LocalSource
from tests.infra.traces import otlp
from tests.infra.traces.otlp import REQUEST, TRACE, request

OTHER_TRACE = "6930a1b2ffffffffffffffffffffffff"
OTHER = otlp.call("other-request", trace=OTHER_TRACE, first=101, later=5_000)
IDS = [REQUEST, REQUEST[:8], f"c-{REQUEST}", TRACE, f"1-{TRACE[:8]}-{TRACE[8:]}", TRACE.upper()]


def exported():
    """Return two calls as an exporter sends them: the first one in two parts, its last spans first."""
    first = otlp.call()
    return [request(*first[4:]), request(*first[:4]), request(*OTHER)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in ["garbage", *exported()]))
    return path


@pytest.fixture
def local(observer, tmp_path):
    for document in exported()[::-1]:  # as sent: an invocation's first spans first
        headers = {"Content-Type": "application/json"}
        sent = urllib.request.Request(f"{find(tmp_path)}/v1/traces", json.dumps(document).encode(), headers)
        urllib.request.urlopen(sent).close()
    return LocalSource(tmp_path)


@pytest.fixture
def cloudwatch(log_groups, monkeypatch):
    """A stack's spans as the log group aws/spans has them."""
    monkeypatch.setattr(CloudWatch, "functions", lambda self, stack: {"QaFunction": "/groups/a"})
    now = int(time.time() * 1000)
    foreign = otlp.call("foreign", trace="f" * 32, first=201, later=9_000)
    events = []
    for one in [*otlp.call(), *OTHER, *foreign]:
        named = {pair["key"]: next(iter(pair["value"].values())) for pair in one["attributes"]}
        resource = {**otlp.RESOURCE, **({"faas.name": "Another"} if one in foreign else {})}
        times = {name: int(one[name]) for name in ("startTimeUnixNano", "endTimeUnixNano")}
        document = {**one, **times, "attributes": named, "resource": {"attributes": resource}, "kind": "INTERNAL"}
        events.append({"timestamp": now, "message": json.dumps(document)})
    log_groups.put_log_events(logGroupName="aws/spans", logStreamName="s", logEvents=events)
    return CloudWatchSource("qa-prod", "us-east-1", None)


@pytest.mark.parametrize("name", IDS)
def test_a_files_call_is_found_by_each_of_its_ids(file, name):
    assert len(FileSource(file).find(name)) == 8


@pytest.mark.parametrize("name", IDS)
def test_the_local_lambdas_call_is_found_by_each_of_its_ids(local, name):
    assert len(local.find(name)) == 8


@pytest.mark.parametrize("name", [REQUEST, f"c-{REQUEST}", TRACE, f"1-{TRACE[:8]}-{TRACE[8:]}", TRACE.upper()])
def test_cloudwatchs_call_is_found_by_each_of_its_ids(cloudwatch, name):
    assert len(cloudwatch.find(name)) == 8


@pytest.mark.parametrize("kind", ["file", "local", "cloudwatch"])
def test_recent_calls_are_the_projects_oldest_first(kind, request):
    source = request.getfixturevalue(kind)
    source = FileSource(source) if kind == "file" else source
    assert [span.attributes["faas.invocation_id"] for span in source.recent()] == [REQUEST, "other-request"]


@pytest.mark.parametrize("kind", ["file", "local", "cloudwatch"])
@pytest.mark.parametrize("name", ["unknown-id", "../traces", 'x" y', "%", ""])
def test_an_unknown_id_has_no_spans(kind, name, request):
    source = request.getfixturevalue(kind)
    assert (FileSource(source) if kind == "file" else source).find(name) == []


def test_one_document_over_many_lines_is_read_from_a_stream():
    text = json.dumps(exported(), indent=1).encode()
    source = FileSource(None, io.BytesIO(text))
    assert (len(source.find(REQUEST)), len(source.recent())) == (8, 2)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl: No such file"):
        FileSource(tmp_path / "none.jsonl")


def test_without_a_local_lambda_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NotRunning, match="dspy-lambda local"):
        LocalSource(tmp_path)


def test_a_named_pipe_is_read_although_it_cannot_be_read_twice(file, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True)
    writer.start()
    assert FileSource(pipe).recent() != []
    writer.join(60)
