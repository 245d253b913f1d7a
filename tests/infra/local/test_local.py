"""A project's functions, API and queues on the real runtime client: each test starts real processes."""

import asyncio
import json
import os
import sys

import pytest

from dspy_lambda_infra.local.local import CATALOGUE
from tests.conftest import EVENTS, QUICKSTART
from tests.infra.local.support import direct
from tests.support import AECHO, until


def test_the_sample_events_get_the_same_answers_as_from_the_handler(make_local, serve, event):
    async def run():
        async with make_local(QUICKSTART) as local:
            function = local.function(CATALOGUE)
            names = sorted(path.stem for path in EVENTS.glob("*.json"))
            return {
                name: json.loads((await function.invoke(json.dumps(event(name)).encode())).payload) for name in names
            }

    answers = asyncio.run(run())
    assert len(answers) == 9
    assert answers == {name: serve(event(name)) for name in answers}


RAISES = """
class Raises(dspy.Module):
    def forward(self):
        print("about to raise")
        raise ValueError("the reason")
"""


@pytest.mark.parametrize(("variables", "shown"), [({}, True), ({"DSPY_LAMBDA_EXCEPTION_TEXTS": "none"}, False)])
def test_local_callers_see_exception_texts_unless_disabled(
    make_project, make_local, lines, monkeypatch, variables, shown
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def run():
        async with make_local(make_project({"raises": RAISES})) as local:
            return await local.function("Raises").invoke(direct())

    answer = asyncio.run(run())
    assert ("ValueError: the reason" in answer.message) is shown
    records = lines.records
    assert records.calls[0].get("exception") == ("the reason" if shown else None)
    (printed,) = [line for line in records.lines if line.get("message") == "about to raise"]
    assert printed["function_request_id"] == records.calls[0]["function_request_id"]


KEYS = """
import boto3

SESSION = boto3.Session()

class Keys(dspy.Module):
    async def aforward(self) -> list[str]:
        return [SESSION.get_credentials().access_key for _ in range(2)]
"""


# Like an assumed role's, its keys expire; the SDK renews them 15 minutes before, or on each use if shorter-lived.
EXPIRING = """
import datetime, json, pathlib
count = pathlib.Path(__file__).with_suffix(".count")
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
keys = {"AccessKeyId": f"key-{n}", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": expires.isoformat()}
print(json.dumps({"Version": 1, **keys}))
"""


@pytest.mark.parametrize("name", ["AWS_PROFILE", "default", None])
def test_local_programs_use_the_developers_profile_and_renew_its_credentials(
    make_project, make_local, tmp_path, monkeypatch, name
):
    """Without a profile, programs get fake keys, so that they can call the local queues."""
    for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    (tmp_path / "expiring.py").write_text(EXPIRING)
    profile = {"AWS_PROFILE": "profile dev", "default": "default", None: "profile other"}[name]
    (tmp_path / "config").write_text(f"[{profile}]\ncredential_process = {sys.executable} {tmp_path / 'expiring.py'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if name == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "dev")
    settings = {"defaults": {"sqs": {"max_receive_count": 2, "backoff_seconds": 1}}}
    project = make_project({"keys": KEYS, "aecho": AECHO}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=300) as server:
            answer = json.loads((await local.function("Keys").invoke(direct())).payload)
            queue = local.queues["AEcho"]
            server.client.send_message(QueueUrl=queue.url, MessageBody='{"question": 5}')

            def is_dead():
                found = server.client.get_queue_attributes(QueueUrl=queue.dead_letter_url, AttributeNames=["All"])
                return found["Attributes"]["ApproximateNumberOfMessages"] == "1"

            await until(is_dead)  # after the backoff, not after the visibility timeout
            return answer["outputs"]["result"]

    first, second = asyncio.run(run())
    if name is None:
        assert (first, second) == ("local", "local")
    else:
        assert first.startswith("key-")
        assert second.startswith("key-")
        assert first != second


LOGS = """
import logging
class Logs(dspy.Module):
    def forward(self, fails: bool) -> str:
        logging.debug("debug %s", fails)
        logging.info("info")
        logging.warning("warning")
        if fails:
            raise ValueError
        return "x"
"""


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        ({"lambda": {"log_level": "WARN"}}, ["warning"] * 2),
        ({"telemetry": {"buffer_debug_logs": True}}, ["debug True", "info", "info", "warning", "warning"]),
    ],
)
def test_the_log_level_holds_with_lambdas_runtime_client(make_project, make_local, lines, config, messages):
    """The runtime client sets up logging itself, by the same variable."""

    async def run():
        async with make_local(make_project({"logs": LOGS}, **config)) as local:
            for fails in (False, True):
                await local.function("Logs").invoke(json.dumps({"inputs": {"fails": fails}}).encode())

    asyncio.run(run())
    assert sorted(line["message"] for line in lines.records.lines if line.get("logger") == "root") == messages
    assert lines.records.values("Calls") == [1, 1]
