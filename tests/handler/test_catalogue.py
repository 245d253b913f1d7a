"""The catalogue function in a separate process, compared with the handler that serves all programs."""

import json
import os
import subprocess
import sys

import pytest

from dspy_lambda.api.shared import MANIFEST, SHARED_PATHS
from dspy_lambda_infra.local.events import EVENTS, Request, http_event, response, rest_event
from dspy_lambda_infra.manifest import manifest
from dspy_lambda_infra.project import load_project
from tests.conftest import ROOT
from tests.support import AECHO, ECHO, Context, problem, sqs

ORIGIN = "https://example.com"
REQUEST_ID = "request-of-this-test"
SCRIPT = """
import json, sys
class Context:
    aws_request_id = sys.argv[1]
    def get_remaining_time_in_millis(self):
        return 30_000
import dspy_lambda.catalogue
at_init = set(sys.modules)
answers = []
for event in json.load(sys.stdin):
    try:
        answers.append(dspy_lambda.catalogue.lambda_handler(event, Context()))
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps({"answers": answers, "at_init": sorted(at_init), "modules": sorted(sys.modules)}))
"""


@pytest.fixture
def project(make_project):
    modules = {"echo": ECHO, "aecho": AECHO}
    return make_project(modules, description="Two echoes", server={"cors_origins": [ORIGIN]})


@pytest.fixture
def ask(project, tmp_path):
    """Invoke the catalogue function with these events; return its answers and the modules that it imported."""

    def invoke(*events):
        text = json.dumps(manifest(load_project(project)))
        (tmp_path / MANIFEST).write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, REQUEST_ID],
            input=json.dumps(events),
            env={**os.environ, "LAMBDA_TASK_ROOT": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return invoke


def test_the_catalogue_imports_no_program_code(ask):
    found = ask(*(rest_event(Request("GET", path)) for path in SHARED_PATHS))
    assert [answer["statusCode"] for answer in found["answers"]] == [200] * len(SHARED_PATHS)
    heavy = {"dspy", "litellm", "boto3", "botocore", "aws_lambda_powertools", "yaml"}
    heavy |= {"dspy_lambda_infra", "dspy_lambda.environment"}
    assert not heavy & set(found["modules"])
    assert set(found["modules"]) & {"fastapi", "mangum"}


def test_the_catalogue_answers_as_the_handler_of_all_programs(ask, make_serve, project):
    requests = [Request("GET", path, headers=[("Origin", ORIGIN), ("Host", "example.com")]) for path in SHARED_PATHS]
    kinds = [(kind, make) for kind, make in EVENTS.items() if kind != "alb"]
    kinds.append(("http", lambda request: http_event(request, "prod")))
    events = [(kind, make(request)) for kind, make in kinds for request in requests]
    serve = make_serve(project)
    expected = [response(kind, json.dumps(serve(event)).encode()) for kind, event in events]
    found = [
        response(kind, json.dumps(answer).encode())
        for (kind, _), answer in zip(events, ask(*(event for _, event in events))["answers"], strict=True)
    ]
    assert [answer.status for answer in found] == [200] * len(events)
    assert found == expected
    programs = json.loads(found[SHARED_PATHS.index("/programs")].body)["programs"]
    assert [(program["name"], program["async"]) for program in programs] == [("AEcho", True), ("Echo", False)]
    openapi = json.loads(found[SHARED_PATHS.index("/openapi.json")].body)
    assert openapi["info"]["description"] == "Two echoes"
    assert {"/Echo", "/AEcho"} <= openapi["paths"].keys()


@pytest.mark.parametrize("kind", ["rest", "http", "url"])
def test_the_catalogue_answers_unknown_routes_with_a_problem(ask, make_serve, project, kind):
    requests = {
        ("GET", "/nothing"): 404,
        ("POST", "/Echo"): 404,
        ("POST", "/programs"): 405,
        ("GET", "/health/live/"): 404,
    }
    events = [EVENTS[kind](Request(method, path)) for method, path in requests]
    answers = ask(*events)["answers"]
    found = [response(kind, json.dumps(answer).encode()) for answer in answers]
    assert [answer.status for answer in found] == list(requests.values())
    assert [problem(answer)["request_id"] for answer in found] == [REQUEST_ID] * len(found)
    serve, context = make_serve(project), Context(aws_request_id=REQUEST_ID)
    for event, answer in [(events[0], found[0]), *zip(events[2:], found[2:], strict=True)]:
        assert response(kind, json.dumps(serve(event, context)).encode()) == answer


def test_the_catalogue_answers_preflight_requests(ask):
    headers = [("Access-Control-Request-Method", "GET")]
    asked = [Request("OPTIONS", "/programs", headers=[("Origin", o), *headers]) for o in (ORIGIN, "https://other.org")]
    own, other = (response("rest", json.dumps(a).encode()) for a in ask(*map(rest_event, asked))["answers"])
    assert (own.status, dict(own.headers)["access-control-allow-origin"]) == (200, ORIGIN)
    assert "GET" in dict(own.headers)["access-control-allow-methods"]
    assert other.status == 400
    assert "access-control-allow-origin" not in dict(other.headers)


def test_the_catalogue_refuses_events_that_are_not_http(ask, event):
    broken = ([], None, "x", {"version": "2.0", "requestContext": {"http": {}}})
    schedule = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
    others = (sqs({"question": "q"}), {"program": "Echo", "inputs": {}}, schedule, {})
    answers = ask(*broken, *others)["answers"]
    assert [name for name, _ in answers] == ["UnknownEvent"] * 8
    assert all("each program has its own function" in text for _, text in answers[4:])


def test_the_catalogue_answers_malformed_requests(ask):
    """The function must not fail, or anyone could trigger an alarm."""
    broken = {
        **rest_event(Request("GET", "/programs", headers=[("Host", "a:b:c")])),
        "body": "%%",
        "isBase64Encoded": True,
    }
    bare = {**http_event(Request("GET", "/health/live")), "headers": None}
    assert [answer["statusCode"] for answer in ask(broken, bare)["answers"]] == [200, 200]


def test_the_catalogue_fails_at_init_without_its_manifest(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, REQUEST_ID],
        env={**os.environ, "LAMBDA_TASK_ROOT": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert MANIFEST in done.stderr.splitlines()[-1]
