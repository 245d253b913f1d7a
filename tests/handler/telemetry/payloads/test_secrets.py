"""Secrets planted wherever a call has texts never reach what the handler writes, at any setting and log level."""

import html
import io
import json
import tempfile
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.errors import CallError
from dspy_lambda.telemetry.export.otlp import Encoder
from dspy_lambda.telemetry.traces.start import write_payloads
from dspy_lambda.telemetry.traces.tracer import Tracer
from dspy_lambda_infra.logs.selection import Selection
from dspy_lambda_infra.logs.view import Options, View
from dspy_lambda_infra.terminal import Terminal
from dspy_lambda_infra.traces.spans import spans
from dspy_lambda_infra.traces.waterfall import waterfall
from tests.support import failures, sqs, without_retries

pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs")
# A text of each kind that some notation escapes.
PASSWORD = 'pass "word" für\nalle & <\\x>'
PIN = "pin-83125-4711"
TOKEN = "out-token-5567-zz"
SSN = "078-05-1120"
LM_KEY = "key-in-code-99231-abcdef"
ENVIRONMENT_KEY = "key-of-the-environment-4471"
SESSION = "session-token-of-the-role-7781"
HEADER = "header-of-the-caller-1093-xyz"
SECRETS = {
    name: value
    for name, value in globals().items()
    if name in ("PASSWORD", "PIN", "TOKEN", "SSN", "LM_KEY", "ENVIRONMENT_KEY", "SESSION", "HEADER")
}
# Not masked by a rule: may be written at `masked`, but not below.
PRIVATE = "a private question about gardens"

PROGRAM = """
from pydantic import BaseModel, SecretStr

class Account(BaseModel):
    pin: SecretStr
    owner: str

class Scripted(dspy.BaseLM):
    "Answers as the question says, and quotes the whole request in its failures."

    def __init__(self):
        super().__init__("scripted", api_key="{LM_KEY}")

    def forward(self, prompt=None, messages=None, **kwargs):
        text = str(messages)
        if "refuse" in text:
            from dspy.utils.exceptions import LMAuthError
            raise LMAuthError(f"401: key {LM_KEY} refused; Authorization: Bearer {LM_KEY}; request: " + text)
        said = messages[-1]["content"].replace("[[ ", "(").replace(" ]]", ")")
        answer = "[[ ## token ## ]]\\n{TOKEN}\\n\\n[[ ## answer ## ]]\\nyou said " + said
        if "unparseable" in text:
            answer = "[[ ## token ## ]]\\n{TOKEN}\\n\\n[[ ## answr ## ]] {TOKEN}, SSN {SSN}, of " + text + repr(text)
        return type("Response", (), {
            "choices": [type("Choice", (), {
                "message": type("Message", (), {"content": answer}), "finish_reason": "stop",
            })],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "model": "scripted",
        })

    async def aforward(self, prompt=None, messages=None, **kwargs):
        return self.forward(prompt, messages, **kwargs)

class Teller(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("password, account, question -> token, answer")
        self.predict.lm = Scripted()

    def arguments(self, password, account, question):
        if "raise" in question:
            raise ValueError(f"{password!r} {password} of {account.pin.get_secret_value()} asks {question}, ssn {SSN}")
        return dict(password=password, account=account.pin.get_secret_value(), question=question)
"""
SYNC = """
class Tell(Teller):
    def forward(self, password: str, account: Account, question: str, cookies: dict[str, str] = {}):
        return self.predict(**self.arguments(password, account, question))
"""
ASYNC = """
class Tell(Teller):
    async def aforward(self, password: str, account: Account, question: str, cookies: dict[str, str] = {}):
        return await self.predict.acall(**self.arguments(password, account, question))
"""


def filled(text):
    for name, value in SECRETS.items():
        text = text.replace("{" + name + "}", value)
    return text


def inputs(question, **changed):
    return {
        "password": PASSWORD,
        "account": {"pin": PIN, "owner": "me"},
        "question": f"{PRIVATE}: {question}; SSN {SSN}",
        "cookies": {"theme": HEADER},
        **changed,
    }


CALLS = {
    "success": inputs("answer"),
    "program error": inputs("raise"),
    "adapter parse error": inputs("unparseable"),
    "provider error": inputs("refuse"),
    "invalid": inputs("answer", account={"pin": PIN, "owner": [PASSWORD]}),
    "no object": [PASSWORD, PIN],
    "a text": PASSWORD,
}


def logs_output(written):
    """Return the page that `dspy-lambda logs --payloads --lines --html` writes of these lines, and what it prints."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as printed:
        page = Path(folder, "report.html")
        shown = Options(Path(folder), own_lines=True, payloads=True, limit=1000, html=page)
        view = View(shown, Selection())
        for line in written.splitlines(keepends=True):
            view.add(line.encode())
        view.finish()
        return [html.unescape(page.read_text()), joined(printed.getvalue())]


def trace_output(requests):
    """Return what `dspy-lambda trace --payloads` prints of these spans."""
    found = [list(spans(request)) for request in requests]
    wide = Terminal(10_000, colors=False, unicode=True)
    return [joined("\n".join(waterfall(each, wide, with_payloads=True))) for each in found]


def joined(text):
    """Return a text without the indentation of its lines, which could be within a secret."""
    return "\n".join(line.strip() for line in text.splitlines())


# Each returns the texts that one destination got.
SOURCES = {
    "log": lambda served, written: [json.loads(line) for line in written.splitlines()],
    "spans": lambda served, written: served.requests,
    "logs": lambda served, written: logs_output(written),
    "trace": lambda served, written: trace_output(served.requests),
}


def notations(secret):
    yield from (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (quote(secret), quote(secret, safe=""), quote_plus(secret), *filter(None, secret.splitlines()))


def hits(served, written, secrets):
    """Return the secrets in any text within the lines of any destination, as it is read from their JSON."""
    found = []
    for source, read in SOURCES.items():
        for text in map(str, texts_of(read(served, written))):
            found += [(source, name) for name, secret in secrets.items() if any(n in text for n in notations(secret))]
    return found


def texts_of(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    else:
        yield value


def send(serve):
    """Send each call through every kind of source."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {HEADER}", "Cookie": f"id={HEADER}"}
    for body in CALLS.values():
        serve.post("/Tell", body, headers=headers)
        with suppress(CallError):
            serve({"program": "Tell", "inputs": body})
    serve.post("/Tell", ('{"password": ' + json.dumps(PASSWORD) + ", " + SSN).encode(), headers=headers)
    bodies = [*CALLS.values(), '{"password": ' + json.dumps(PASSWORD) + f', "x": {PIN}']
    assert "m0" not in failures(serve(sqs(*bodies)))


def export(environment, requests, spans):
    """Do with the spans of a trace what the exporter does, and keep the requests that it would send."""
    write_payloads(environment.telemetry.payloads, spans)
    requests += [json.loads(body) for body, _ in Encoder({}).encode(spans)]


@pytest.fixture
def serve(make_project, make_serve, monkeypatch):
    def make(body, level, **telemetry):
        monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", level)
        masks = {"mask": [r"/\d{3}-\d{2}-\d{4}/"]}
        project = make_project({"tell": filled(PROGRAM) + body}, telemetry={**masks, **telemetry})
        made = make_serve(project, OPENAI_API_KEY=ENVIRONMENT_KEY, AWS_SESSION_TOKEN=SESSION)
        made.requests = []
        assert patch_spans() == {}
        environment = made.environment
        tracer = Tracer(environment.config, partial(export, environment, made.requests), keeps_all=True)
        tracer.collects = bool(environment.telemetry.payloads)
        environment.telemetry.tracer = tracer
        return without_retries(made)

    return make


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("word", ["none", "sizes", "masked"])
@pytest.mark.parametrize("body", [SYNC, ASYNC], ids=["sync", "async"])
def test_no_secret_is_written(serve, output, body, word, level):
    served = serve(body, level, payloads=word)
    send(served)
    written = output.getvalue()
    assert served.requests
    assert '"_aws"' in written  # metrics are written at every level
    assert hits(served, written, SECRETS) == []
    assert trace_output(served.requests)
    if level in ("DEBUG", "INFO"):
        assert "Tell" in logs_output(written)[1]
    if word != "masked":
        assert hits(served, written, {"PRIVATE": PRIVATE}) == []


@pytest.mark.parametrize("body", [SYNC, ASYNC], ids=["sync", "async"])
def test_the_calls_end_as_planned_and_what_is_not_masked_is_written(serve, records, body):
    """Otherwise nothing written would prove nothing."""
    send(serve(body, "INFO", payloads="masked"))
    calls = records().calls
    assert {call["outcome"] for call in calls} == {"success", "program_error", "model_error", "invalid_input"}
    assert {call.get("exception_name") for call in calls} >= {"ValueError", "AdapterParseError", "LMAuthError"}
    done = [call for call in calls if call["outcome"] == "success"]
    assert len(done) == 3
    for call in done:
        assert call["inputs"]["question"] == f"{PRIVATE}: answer; SSN ***"
        assert call["outputs"]["token"] == "***"
        assert PRIVATE in call["outputs"]["answer"]
    failed = [call["exception"] for call in calls if call.get("exception_name")]
    # The answer that could not be parsed ends with a section of a masked field.
    assert [text for text in failed if PRIVATE not in text and "LM Response: " not in text] == []


def test_keys_are_not_written_even_with_everything_else(serve, output):
    served = serve(SYNC, "DEBUG", payloads="full")
    send(served)
    keys = {"LM_KEY", "ENVIRONMENT_KEY", "SESSION"}
    assert hits(served, output.getvalue(), {name: SECRETS[name] for name in keys}) == []
    found = hits(served, output.getvalue(), SECRETS)
    assert set(found) >= {(place, name) for place in SOURCES for name in ("PASSWORD", "TOKEN", "SSN")}
