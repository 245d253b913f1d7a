"""The HTTP contract, through every kind of event."""

import json
import sys

import pytest

from dspy_lambda.errors import UnknownEvent
from dspy_lambda.payload import MAX_BODY_BYTES
from dspy_lambda_infra.local.events import EVENTS, Request, http_event, response
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO, Context, problem, without_retries

KINDS = tuple(EVENTS)
QUESTIONS = {
    "Answer": {"question": "Why?"},
    "Summarise": {"text": "Long.", "sentences": "3"},
    "Triage": {"message": "Help!"},
    "Perspectives": {"question": "Why?", "perspectives": ["a child"]},
}


@pytest.mark.parametrize("program", QUESTIONS)
def test_the_quickstart_answers_equally_through_every_kind(serve, program):
    answers = [serve.post(f"/{program}", QUESTIONS[program], kind) for kind in KINDS]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert {dict(answer.headers)["content-type"] for answer in answers} == {"application/json"}
    assert next(iter(QUESTIONS[program].values())) in answers[0].body.decode()


@pytest.mark.parametrize("path", ["/programs", "/health/live", "/health/ready", "/openapi.json"])
def test_the_shared_routes_answer_equally_through_every_kind(serve, path):
    answers = [serve.get(path, kind) for kind in KINDS]
    assert {answer.status for answer in answers} == {200}
    bodies = [json.loads(answer.body) for answer in answers]
    for body in bodies:
        body.pop("servers", None)  # the stage of a REST API; other kinds have none
    assert bodies == bodies[:1] * len(KINDS)


@pytest.mark.parametrize("name", ["rest", "http", "http-stage", "url", "alb"])
def test_the_sample_events_are_answered(serve, event, name):
    answer = response(name.partition("-")[0], json.dumps(serve(event(name))).encode())
    assert json.loads(answer.body) == {"answer": "gpt-4.1-nano: What is the capital of France?"}


def test_the_name_of_the_source_is_logged(serve, records):
    for kind in KINDS:
        serve.post("/Answer", {"question": "q"}, kind)
    assert [call["source"] for call in records().calls] == list(KINDS)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b"[" * 5000, JSON, 400),
        (b'{"question": ' + b"9" * 5000 + b"}", JSON, 400),
        (b"[]", JSON, 422),
        (b'"text"', JSON, 422),
        (b"null", JSON, 422),
        (b"{}", JSON, 422),
        (b'{"question": 5}', JSON, 422),
        (rb'{"question": "\ud800"}', JSON, 422),
        (b'{"question": "q"}', {"Content-Type": "text/plain"}, 415),
        (b'{"question": "q"}', {"Content-Type": "application/xml"}, 415),
        (b'{"question": "' + b"q" * MAX_BODY_BYTES + b'"}', JSON, 413),
        (b'{"question": "q"}', {}, 200),
        (b'{"question": "q", "more": [1]}', {"Content-Type": "application/vnd.api+json; charset=utf-8"}, 200),
        (rb'{"question": "\u0000"}', JSON, 200),
    ],
)
def test_bodies_are_answered_with_the_status_of_the_contract_through_every_kind(
    serve, records, kind, body, headers, status
):
    answer = serve.post("/Answer", body, kind, headers=headers)
    assert answer.status == status
    (call,) = records().calls
    assert call["outcome"] == ("success" if status == 200 else "invalid_input")
    if status != 200:
        assert problem(answer)["request_id"] == call["function_request_id"]


def test_a_validation_error_names_field_and_reason_but_not_the_value(serve):
    document = problem(serve.post("/Summarise", {"text": 5, "sentences": "secret"}))
    assert document["errors"] == [
        {"loc": ["text"], "msg": "Input should be a valid string", "type": "string_type"},
        {
            "loc": ["sentences"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
            "type": "int_parsing",
        },
    ]
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_paths_and_wrong_methods_are_problems(serve, kind):
    for path in ("/Nope", "/answer", "/Answer/", "/", "/Answer/x"):
        assert problem(serve.post(path, {}, kind))["status"] == 404
    answer = serve.get("/Answer", kind)
    assert problem(answer)["status"] == 405
    assert dict(answer.headers)["allow"] == "POST"


FAULTS = """
from dspy.utils.exceptions import LMRateLimitError
class Raises(dspy.Module):
    async def aforward(self, what: str):
        if what == "value": raise ValueError("sk-secret")
        if what == "exit": raise SystemExit("sk-secret")
        if what == "rate": raise LMRateLimitError("sk-secret", retry_after=6.2)
        if what == "object": return object()
"""


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        ({"rate_limit_rate": 1, "retry_after_seconds": 0.01}, 429, "Rate limited"),
        ({"unauthorized_rate": 1}, 502, "Model unavailable"),
        ({"malformed_rate": 1}, 502, "Model unavailable"),
        ({"hang_rate": 1}, 504, "Deadline exceeded"),
    ],
)
@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_model_failures_reach_a_rest_client_as_readable_json(
    make_project, make_serve, models, fault, status, title, program
):
    serve = without_retries(make_serve(make_project({"echo": ECHO, "aecho": AECHO})))
    models.behave(**fault)
    answer = serve.post(f"/{program}", {"question": "q"}, context=Context(1000 if status == 504 else 30_000))
    document = problem(answer)
    assert (document["status"], document["title"]) == (status, title)
    assert ("retry-after" in dict(answer.headers)) == (status == 429)


@pytest.mark.parametrize(("what", "status"), [("value", 500), ("exit", 500), ("object", 500), ("rate", 429)])
@pytest.mark.parametrize("kind", KINDS)
def test_program_failures_are_problems_without_the_exceptions_text(make_project, make_serve, kind, what, status):
    answer = make_serve(make_project({"raises": FAULTS})).post("/Raises", {"what": what}, kind)
    assert problem(answer)["status"] == status
    assert b"secret" not in answer.body
    assert dict(answer.headers).get("retry-after") == ("7" if what == "rate" else None)


def test_a_failed_program_is_listed_and_answers_503(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO, "broken": "import nothing_of_that_name\n" + AECHO}))
    assert problem(serve.post("/AEcho", {"question": "q"}))["status"] == 503
    assert serve.post("/Echo", {"question": "q"}).status == 200
    listed = {program["name"]: program for program in json.loads(serve.get("/programs").body)["programs"]}
    assert (listed["Echo"]["state"], listed["Echo"]["async"]) == ("ready", False)
    assert listed["AEcho"]["state"] == "failed"
    assert "nothing_of_that_name" in listed["AEcho"]["error"]
    ready = serve.get("/health/ready")
    assert (ready.status, json.loads(ready.body)) == (503, {"status": "not_ready", "failed": ["AEcho"]})
    assert json.loads(serve.get("/health/live").body) == {"status": "alive"}


def test_readiness_counts_the_programs(serve):
    assert json.loads(serve.get("/health/ready").body) == {"status": "ready", "programs": 4}


def test_the_stage_is_part_of_links_but_not_of_the_path(serve):
    event = http_event(Request("GET", "/docs"), stage="staging")
    assert "'/staging/openapi.json'" in response("http", json.dumps(serve(event)).encode()).body.decode()
    assert "'/prod/openapi.json'" in serve.get("/docs", "rest").body.decode()
    assert "'/openapi.json'" in serve.get("/docs", "url").body.decode()


def behind_base_path(kind, request, base="/v1"):
    """The event of a custom domain whose base path is in the path but not in the route.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/rest-api-mappings.html
    """
    event = EVENTS[kind](request)
    if kind == "rest":
        event["path"] = event["requestContext"]["path"] = base + request.path
    else:
        event["rawPath"] = event["requestContext"]["http"]["path"] = base + request.path
    return event


@pytest.mark.parametrize("base", ["/v1", "/team/answers", "/Answer", "/prod"])
@pytest.mark.parametrize("kind", ["rest", "http"])
def test_a_custom_domains_base_path_is_not_part_of_the_route(serve, kind, base):
    event = behind_base_path(kind, Request("POST", "/Answer", body=b'{"question": "q"}'), base)
    assert response(kind, json.dumps(serve(event)).encode()).status == 200
    page = response(kind, json.dumps(serve(behind_base_path(kind, Request("GET", "/docs"), base))).encode())
    assert f"'{base}/openapi.json'" in page.body.decode()


def test_a_base_path_and_a_stage_are_both_left_out_of_the_route(serve):
    event = http_event(Request("GET", "/health/live"), stage="staging")
    event["rawPath"] = event["requestContext"]["http"]["path"] = "/staging/v1/health/live"
    assert response("http", json.dumps(serve(event)).encode()).status == 200


@pytest.mark.parametrize("parameters", [{"proxy": "Answer"}, None, [], {"proxy": 5}, {}], ids=repr)
def test_a_route_with_parameters_from_a_users_own_template_is_followed(serve, parameters):
    event = EVENTS["rest"](Request("POST", "/Answer", body=b'{"question": "q"}'), resource="/{proxy+}")
    assert serve(event)["statusCode"] == 200
    event = behind_base_path("rest", Request("POST", "/Answer", body=b'{"question": "q"}'))
    event |= {"resource": "/{proxy+}", "pathParameters": parameters}
    assert serve(event)["statusCode"] == (200 if parameters == {"proxy": "Answer"} else 404)


@pytest.mark.parametrize("route", [5, [], None, "", "POST", "$default", "ANY /{proxy+", "POST /Other"], ids=repr)
def test_a_route_without_a_path_leaves_the_path_unchanged(serve, route):
    event = EVENTS["http"](Request("POST", "/Answer", body=b'{"question": "q"}')) | {"routeKey": route}
    assert serve(event)["statusCode"] == 200
    event = EVENTS["rest"](Request("POST", "/Answer", body=b'{"question": "q"}')) | {"resource": route or ""}
    assert serve(event)["statusCode"] == 200


def test_the_openapi_document_has_each_programs_schemas(serve):
    document = json.loads(serve.get("/openapi.json").body)
    assert set(document["paths"]) >= {"/Answer", "/Triage", "/programs", "/health/ready"}
    triage, _ = document["components"]["schemas"]["TriageOutputs"]["anyOf"]
    assert triage["properties"]["queue"]["enum"] == ["billing", "technical", "sales", "other"]
    assert document["components"]["schemas"]["SummariseInputs"]["required"] == ["text"]


def test_cors_answers_the_configured_origins_only(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}, server={"cors_origins": ["https://a.example"]}))
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
        answer = serve.post("/Echo", {"question": "q"}, headers={"Origin": origin})
        assert dict(answer.headers).get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(("kind", "times"), [("rest", 1), ("http", 1), ("alb", 1), ("url", 0)])
def test_cors_headers_are_sent_once_and_by_a_function_url_itself(make_project, make_serve, kind, times):
    serve = make_serve(make_project({"echo": ECHO}, server={"cors_origins": ["https://a.example"]}))
    for body, status in (({"question": "q"}, 200), ({}, 422)):
        answer = serve.post("/Echo", body, kind, headers={"Origin": "https://a.example"})
        assert answer.status == status
        assert [name for name, _ in answer.headers].count("access-control-allow-origin") == times


@pytest.mark.parametrize(
    "header", [("host", "a:b:c"), ("host", "[::1]:80"), ("x-forwarded-port", "no"), ("x-forwarded-proto", "ftp")]
)
def test_client_controlled_headers_do_not_cause_errors(serve, header):
    request = Request("POST", "/Answer", headers=[header], body=b'{"question": "q"}')
    for kind in KINDS:
        assert serve.http(request, kind).status == 200


@pytest.mark.parametrize("kind", ["http", "url", "alb"])
def test_a_body_that_is_not_base64_is_a_bad_request(serve, kind):
    event = EVENTS[kind](Request("POST", "/Answer", body=b"x")) | {"body": "a", "isBase64Encoded": True}
    assert response(kind, json.dumps(serve(event)).encode()).status == 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_without_its_parts_is_an_unknown_event(serve, kind):
    event = EVENTS[kind](Request("POST", "/Answer"))
    if kind in ("http", "url"):
        del event["requestContext"]["http"]["method"]
    else:
        del event["path"]
    with pytest.raises(UnknownEvent, match=f"looks like a {kind} request"):
        serve(event)


@pytest.mark.parametrize("value", [["POST"], 5, {"a": 1}, "PO\ud800ST", "PO ST", [[]]], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_with_an_invalid_method_is_an_unknown_event(serve, records, kind, value):
    event = EVENTS[kind](Request("POST", "/Answer"))
    line = event["requestContext"]["http"] if kind in ("http", "url") else event
    line["method" if line is not event else "httpMethod"] = value
    with pytest.raises(UnknownEvent, match=f"looks like a {kind} request"):
        serve(event)
    assert not [line for line in records().lines if line.get("message") == "unexpected error"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_whose_path_is_not_text_is_an_unknown_event(serve, kind):
    nested = []
    for _ in range(900):
        nested = [nested]
    request = EVENTS[kind](Request("POST", "/Answer"))
    places = [request, request["requestContext"], request["requestContext"].get("http", {})]
    found = 0
    for place in places:
        for key in {"path", "rawPath", "stage"} & set(place):
            before, place[key] = place[key], nested
            found += 1
            with pytest.raises(UnknownEvent, match=f"looks like a {kind} request"):
                serve(request)
            place[key] = before
    assert found
    assert serve(request)["statusCode"] == 400


@pytest.mark.parametrize("epoch", [10**400, -(10**400), float("nan"), float("inf"), -1, "now", [], None])
@pytest.mark.parametrize(("kind", "key"), [("rest", "requestTimeEpoch"), ("http", "timeEpoch")])
def test_a_request_is_answered_whatever_its_timestamp(serve, kind, key, epoch):
    event = EVENTS[kind](Request("POST", "/Answer", body=b'{"question": "q"}'))
    event["requestContext"][key] = epoch
    assert serve(event)["statusCode"] == 200


def test_a_single_programs_function_serves_only_its_own_path(make_serve):
    serve = make_serve(QUICKSTART, DSPY_LAMBDA_PROGRAM="Answer", DSPY_LAMBDA_MODULE="quickstart.modules.answer")
    assert serve.post("/Answer", {"question": "q"}).status == 200
    assert serve.post("/Triage", {"message": "m"}).status == 404


def test_a_stage_named_like_a_path_does_not_hide_the_path(serve):
    event = EVENTS["rest"](Request("GET", "/health/live"))
    event["requestContext"] |= {"stage": "health", "path": "/health/health/live"}
    assert response("rest", json.dumps(serve(event)).encode()).status == 200


ODD = """
from typing import Callable
class Odd(dspy.Module):
    def forward(self, a: int, f: Callable = print) -> list[dspy.Prediction]: ...

from typing import Annotated, TypedDict
import pydantic
class Place(TypedDict):
    city: str
class Typed(dspy.Module):
    def forward(self, a: int, most: float = float("inf")) -> Place: ...

class Shows(dspy.Module):
    def forward(self, a: Annotated[int, pydantic.Field(json_schema_extra={"example": object()})]) -> int: ...
"""


def test_hints_without_a_schema_do_not_break_the_document(make_project, make_serve):
    source = ODD
    serve = make_serve(make_project({"odd": source, "echo": ECHO}))
    document = json.loads(serve.get("/openapi.json").body)
    assert document["components"]["schemas"]["OddInputs"]["required"] == ["a"]
    assert "EchoInputs" in document["components"]["schemas"]


def test_a_request_to_a_function_that_was_built_without_a_route_says_so(make_serve, event, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)  # an artifact of `http: false` has none
    monkeypatch.delitem(sys.modules, "dspy_lambda.api.app", raising=False)
    serve = make_serve(QUICKSTART)
    with pytest.raises(UnknownEvent, match=r"no HTTP route.*http: true"):
        serve(event("alb"))
