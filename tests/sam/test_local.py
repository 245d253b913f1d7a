"""The same artifacts under `sam local` and on our local Lambda: equal answers to equal events, requests and invokes.

Where SAM itself is not as AWS is: it asks for no signature, gives none of the template's gateway responses, calls a
function's error a success, cuts off what is over 6 MB, and answers with a 502 of its own to HEAD and to a body that is
not UTF-8. Its REST events have no stage in their path, and all of them one request id and time
(https://github.com/aws/aws-sam-cli/issues/9279).
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urljoin

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from dspy_lambda_infra.local.events import Request
from dspy_lambda_infra.template.syntax import load
from tests.conftest import EVENTS
from tests.sam.answers import ask, of_http, of_payload
from tests.sam.conftest import EXTRA, artifact, functions_of
from tests.sam.sam import LOCAL, sam, serving

# The gateways of the sample events; others have none.
PROGRAMS = {path.stem: "Triage" if path.stem == "direct" else "Answer" for path in sorted(EVENTS.glob("*.json"))}
JSON = [("Content-Type", "application/json")]


def post(path, inputs, headers=JSON):
    body = inputs if isinstance(inputs, bytes) else json.dumps(inputs).encode()
    return Request("POST", path, headers=headers, body=body)


WARM = [
    post("/Answer", {"question": "q"}),
    post("/Perspectives", {"question": "q"}),
    post("/Summarise", {"text": "t"}),
    post("/Triage", {"message": "m"}),
    Request("GET", "/health/live"),
]
REQUESTS = {
    "a sync program": post("/Answer", {"question": "Why is the sky blue?"}),
    "an async program": post("/Summarise", {"text": "A long text.", "sentences": 1}),
    "typed outputs": post("/Triage", {"message": "My invoice of May was charged twice."}),
    "a fan-out": post("/Perspectives", {"question": "Shall we?", "perspectives": ["a cat", "a dog"]}),
    "other letters": post("/Answer", {"question": "Größe in €, 東京?"}),
    "escaped letters, a query": Request("POST", "/Answer", "a=1&a=%20x&b", JSON, b'{"question": "\\u00fc\\n"}'),
    "no media type": post("/Answer", {"question": "q"}, headers=[]),
    "a JSON media type": post("/Answer", {"question": "q"}, headers=[("Content-Type", "application/vnd.x+json")]),
    "the programs": Request("GET", "/programs"),
    "is it alive": Request("GET", "/health/live"),
    "is it ready": Request("GET", "/health/ready"),
    "a wrong method": Request("GET", "/Answer"),
    "another wrong method": Request("DELETE", "/Answer"),
    "a body without a method for it": Request("PUT", "/Answer", headers=JSON, body=b"{}"),
    "no JSON": post("/Answer", b"no JSON"),
    "no body": post("/Answer", b""),
    "no object": post("/Answer", []),
    "a missing input": post("/Answer", {}),
    "an input of another type": post("/Summarise", {"text": "t", "sentences": "many"}),
    "another media type": post("/Answer", {"question": "q"}, headers=[("Content-Type", "text/plain")]),
    "a body that is too large": post("/Answer", {"question": "a" * 6_100_000}),
}
# The answer's status by the models' behavior.
FAILURES = {
    "a rate limit": ({"rate_limit_rate": 1.0, "retry_after_seconds": 100}, 429),
    "a refused key": ({"unauthorized_rate": 1.0}, 502),
    "nonsense": ({"malformed_rate": 1.0}, 502),
}
DIRECT = {
    "inputs": ("Triage", {"inputs": {"message": "m"}}),
    "a named program": ("Triage", {"program": "Triage", "inputs": {"message": "m"}}),
    "inputs that do not fit": ("Triage", {"inputs": {}}),
    "another function's program": ("Triage", {"program": "Answer", "inputs": {"question": "q"}}),
    "an object of no source": ("Triage", {"what": 1}),
    "no object": ("Triage", []),
}


@dataclass(frozen=True)
class Api:
    """The quickstart's API: the kind of its events, SAM's address and our own."""

    kind: str
    sam: str
    local: str


@pytest.fixture(scope="session")
def answered(quickstart, image):
    """The answers of `sam local invoke` to each sample event."""

    def invoke(name):
        event = ("--event", str(EVENTS / f"{name}.json"), "--env-vars", "env.json", "--invoke-image", image)
        return sam(quickstart, "local", "invoke", f"{PROGRAMS[name]}Function", *LOCAL, *event)

    first, *rest = PROGRAMS
    answers = {first: invoke(first)}  # run alone: it derives SAM's own image from the base image
    with ThreadPoolExecutor(2) as pool:
        answers.update(zip(rest, pool.map(invoke, rest), strict=True))
    return answers


@pytest.fixture(scope="session", params=["rest", "http"])
def api(request, quickstart, make_copy, local, image, _model_server):
    root = quickstart
    if request.param == "http":
        # Another template with the same artifacts.
        code = {name: {"Properties": {"CodeUri": str(artifact(quickstart, name))}} for name in functions_of(quickstart)}
        root = make_copy(("kind: rest", "kind: http"), extra={**EXTRA, "Resources": code})
    options = (*LOCAL, "--env-vars", "env.json", "--invoke-image", image)
    _model_server.behave()  # reset what the last test set
    with serving(root, "start-api", *options) as address, ThreadPoolExecutor(len(WARM)) as pool:
        # All concurrently, but never two for one function, which would crash the emulator.
        assert [found.status for found in pool.map(lambda warm: ask(address, warm), WARM)] == [200] * len(WARM)
        yield Api(request.param, address, local.addresses[request.param])


@pytest.fixture(scope="session")
def client(quickstart, image):
    """A Lambda client for `sam local start-lambda`."""
    with serving(quickstart, "start-lambda", *LOCAL, "--env-vars", "env.json", "--invoke-image", image) as address:
        config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, read_timeout=60)
        yield boto3.client("lambda", region_name="us-east-1", endpoint_url=address, config=config)


@pytest.mark.parametrize("name", PROGRAMS)
def test_sample_events_get_the_same_answers_from_sam_and_local(answered, local, models, name):
    ours = local.invoke(PROGRAMS[name], (EVENTS / f"{name}.json").read_bytes())
    assert ours.error is None
    assert of_payload(answered[name]) == of_payload(ours.payload)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_http_requests_get_the_same_answers_from_sam_and_local(api, models, request_):
    assert of_http(ask(api.sam, request_)) == of_http(ask(api.local, request_))


@pytest.mark.parametrize(("behavior", "status"), FAILURES.values(), ids=FAILURES)
def test_a_failing_model_gives_the_same_answer_on_sam_and_local(api, models, behavior, status):
    answers = []
    for address in (api.sam, api.local):
        models.behave(**behavior)
        answers.append(of_http(ask(address, WARM[0])))
    assert answers[0] == answers[1]
    assert answers[0][0] == status


def test_the_openapi_document_is_the_same_on_sam_and_local_except_for_the_stage(api):
    (status, headers, theirs), ours = (of_http(ask(a, Request("GET", "/openapi.json"))) for a in (api.sam, api.local))
    assert theirs.pop("servers", None) is None
    ours[2].pop("servers", None)
    assert (status, headers, theirs) == ours
    assert "/Answer" in theirs["paths"]


@pytest.mark.parametrize("host", ["sam", "local"])
def test_the_docs_page_finds_the_openapi_document(api, host):
    address = getattr(api, host)
    status, headers, page = of_http(ask(address, Request("GET", "/docs")))
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    (path,) = re.findall(r"url: '(.*openapi.json)'", page)
    assert ask(address, Request("GET", urljoin("/docs", path))).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Request("GET", "/nowhere"), id="an unknown path"),
        pytest.param(post("/programs", {}), id="a shared path, not with GET"),
    ],
)
def test_sam_refuses_unknown_routes_in_its_own_words(api, request_):
    assert of_http(ask(api.sam, request_))[::2] == (403, {"message": "Missing Authentication Token"})
    assert ask(api.local, request_).status == 404


def test_sam_answers_head_requests_with_an_internal_error(api):
    head = Request("HEAD", "/programs")
    assert ask(api.sam, head).status == 502
    assert ask(api.local, head).status == 404


def test_the_local_front_refuses_with_the_templates_gateway_responses(quickstart, local):
    """SAM does not do this: it does not support gateway responses."""
    template = load((quickstart / "template.yaml").read_text())
    said = template["Resources"]["Api"]["Properties"]["GatewayResponses"]["MISSING_AUTHENTICATION_TOKEN"]
    answer = ask(local.addresses["rest"], Request("GET", "/nowhere"))
    assert answer.status == said["StatusCode"]
    words, ours = json.loads(said["ResponseTemplates"]["application/json"]), json.loads(answer.body)
    assert ours.pop("request_id") != words.pop("request_id")
    # Nothing is signed here: the path is wrong, and the detail says where to find the right ones.
    assert "signature" in words.pop("detail")
    assert "GET /programs" in ours.pop("detail")
    assert ours == words


@pytest.mark.parametrize(("program", "event"), DIRECT.values(), ids=DIRECT)
def test_an_invoke_gets_the_same_answer_or_error_type_from_sam_and_local(client, local, models, program, event):
    payload = json.dumps(event).encode()
    theirs = client.invoke(FunctionName=f"{program}Function", Payload=payload)
    answer, ours = of_payload(theirs["Payload"].read()), local.invoke(program, payload)
    assert theirs["StatusCode"] == 200
    assert answer == of_payload(ours.payload)
    assert answer.get("errorType") == ours.error
    # AWS reports an error as "Unhandled". SAM recognizes errors by their keys, but not those of Python, which
    # include `requestId` (https://github.com/aws/aws-sam-cli/issues/1148).
    assert "FunctionError" not in theirs


def test_rest_events_with_a_fixed_sam_clock_get_no_deadline_from_it(client, models, event):
    """All of SAM's REST events have the time when `sam local start-api` was started, here 40 seconds ago."""
    rest = event("rest")
    rest["requestContext"]["requestTimeEpoch"] = int((time.time() - 40) * 1000)
    theirs = client.invoke(FunctionName="AnswerFunction", Payload=json.dumps(rest).encode())
    assert of_payload(theirs["Payload"].read())["statusCode"] == 200
