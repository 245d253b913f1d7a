"""The spans of invocations, as the real handler makes them."""

from __future__ import annotations

import json

import pytest

from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.telemetry.traces.spans import CLIENT, CONSUMER, INTERNAL, SERVER
from dspy_lambda.telemetry.traces.tracer import Tracer
from tests.support import AECHO, ECHO, sqs

TRACE, CALLER = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
BOTH = pytest.mark.parametrize("program", ["Echo", "AEcho"])
MODULES = {"echo": ECHO, "aecho": AECHO}


@pytest.fixture
def trace(make_project, make_serve):
    """Serve a project, and return its server and the spans of each kept trace."""

    def make(modules=MODULES, *, keeps_all=True, telemetry=None, **config):
        assert patch_spans() == {}
        telemetry = {"traces": "https://collector.example", **(telemetry or {})}
        project = make_project(modules, telemetry=telemetry, **config)
        serve = make_serve(project, DSPY_LAMBDA_TRACES="none")  # without an exporter
        kept = []
        telemetry = serve.environment.telemetry
        telemetry.tracer = Tracer(serve.environment.config, kept.append, keeps_all=keeps_all)
        return serve, kept

    return make


def tree(spans):
    """Return each span's name with those of its children."""
    children = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span)
    known = {span.span_id for span in spans}

    def below(span):
        return {span.name: [below(child) for child in children.get(span.span_id, [])]}

    return [below(span) for span in spans if span.parent_id not in known]


@BOTH
def test_a_request_makes_a_span_for_each_step(trace, program):
    serve, kept = trace()
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    ((*spans,),) = kept
    expected = {f"invoke_workflow {program}": [{"Predict": [{"chat gpt-4.1-nano": []}]}]}
    assert tree(spans) == [{f"POST /{program}": [expected]}]
    assert [span.kind for span in spans] == [SERVER, INTERNAL, INTERNAL, CLIENT]
    assert all(0 < span.start_ns <= span.end_ns for span in spans)
    assert all(span.error is None for span in spans)


@BOTH
def test_tokens_and_cost_of_a_span_are_those_of_the_record(trace, records, program):
    serve, kept = trace()
    serve.post(f"/{program}", {"question": "q"})
    ((root, call, _, lm),) = kept
    (record,) = records().calls
    for name in ("input_tokens", "output_tokens"):
        assert lm.attributes[f"gen_ai.usage.{name}"] == call.attributes[f"dspy_lambda.{name}"] == record[name] > 0
    assert lm.attributes["dspy_lambda.cost_usd"] == call.attributes["dspy_lambda.cost_usd"] == record["cost_usd"] > 0
    assert lm.attributes["gen_ai.provider.name"] == "openai"
    assert lm.attributes["dspy_lambda.alias"] == call.attributes["dspy_lambda.model"] == "fast"
    assert root.attributes["faas.invocation_id"] == record["function_request_id"]


def test_each_record_has_a_span_linked_to_its_sender(trace):
    serve, kept = trace()
    event = sqs(*[{"program": "AEcho", "inputs": {"question": "q"}}] * 3)
    event["Records"][0]["attributes"]["AWSTraceHeader"] = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={CALLER};Sampled=1"
    serve(event)
    ((root, *spans),) = kept
    records = [span for span in spans if span.name == "process record"]
    assert (root.name, root.kind) == ("process batch", CONSUMER)
    assert [span.parent_id for span in records] == [root.span_id] * 3
    links = {span.attributes["messaging.message.id"]: span.links for span in records}
    first = event["Records"][0]["messageId"]
    assert links.pop(first) == ((TRACE, CALLER),)
    assert set(links.values()) == {()}
    calls = [span for span in spans if span.name == "invoke_workflow AEcho"]
    assert {span.parent_id for span in calls} == {span.span_id for span in records}
    assert all(span.error is None and span.end_ns for span in spans)
    for span in (root, *records):
        found = [span.attributes[f"messaging.{name}"] for name in ("system", "operation.name", "operation.type")]
        assert found == ["aws_sqs", "process", "process"]


@BOTH
def test_retries_are_attempts_with_their_reason(trace, models, program, monkeypatch):
    monkeypatch.setattr("dspy_lambda.provider_bounds.attempts.random.uniform", lambda *_: 0.001)
    serve, kept = trace()
    models.behave(failures=["drop", "drop"])
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    ((*_, lm, first, second, third),) = kept
    assert [span.name for span in (first, second, third)] == ["attempt 1", "attempt 2", "attempt 3"]
    assert {span.parent_id for span in (first, second, third)} == {lm.span_id}
    reason = second.attributes["dspy_lambda.retry_reason"]
    assert (first.error, second.error, third.error) == (reason, reason, None)
    assert third.attributes["dspy_lambda.retry_reason"] == reason
    assert (lm.attributes["dspy_lambda.attempts"], lm.attributes["dspy_lambda.retries"]) == (3, 2)
    assert lm.error is None


@BOTH
def test_a_fallback_is_an_lm_call_of_its_own_with_the_reason(trace, models, program):
    key = {"env": "OPENAI_API_KEY", "cache": False}
    registry = {
        "cheap": {"model": "openai/cheap", "fallback": ["strong"], **key},
        "strong": {"model": "openai/s", **key},
    }
    serve, kept = trace(models={"default": "cheap", "registry": registry})
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    failed, answered = (span for span in kept[0] if span.kind == CLIENT)
    assert (failed.name, failed.error, answered.error) == ("chat cheap", "LMRateLimitError", None)
    assert answered.attributes["dspy_lambda.fallback_from"] == "cheap"
    assert answered.attributes["dspy_lambda.fallback_reason"] == "rate_limit"
    assert answered.attributes["dspy_lambda.alias"] == "strong"
    assert failed.parent_id == answered.parent_id


def test_a_callers_context_is_continued_and_its_no_respected(trace):
    serve, kept = trace(keeps_all=False, telemetry={"sample": 1})
    for flags in ("01", "00"):
        serve.post("/AEcho", {"question": "q"}, headers={"traceparent": f"00-{TRACE}-{CALLER}-{flags}"})
    (spans,) = kept
    assert {span.trace.trace_id for span in spans} == {TRACE}
    assert spans[0].parent_id == CALLER


def test_a_callers_no_can_be_ignored(trace):
    serve, kept = trace(keeps_all=False, telemetry={"sample": 1, "incoming": "ignore"})
    serve.post("/AEcho", {"question": "q"}, headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    assert len(kept) == 1


def test_failed_calls_are_kept_and_others_by_the_ratio(trace, models):
    serve, kept = trace(keeps_all=False, telemetry={"sample": 0})
    serve.post("/AEcho", {"question": "q"})
    serve.post("/AEcho", {"nothing": "of it"})
    assert kept == []
    models.behave(unauthorized_rate=1)
    assert serve.post("/AEcho", {"question": "q"}).status == 502
    (spans,) = kept
    assert [span.error for span in spans if span.name.startswith("POST")] == ["LMAuthError"]


def test_traces_that_are_not_kept_hold_no_payloads(trace):
    serve, _ = trace(keeps_all=False, telemetry={"sample": 0})
    tracer = serve.environment.telemetry.tracer
    tracer.collects, begun, begin = True, [], tracer.begin
    tracer.begin = lambda invocation, *more: (begin(invocation, *more), begun.append(invocation.trace))
    serve.post("/AEcho", {"question": "q"})
    assert len(begun[0].spans) > 1
    assert {span.payload for span in begun[0].spans} == {None}


def test_about_the_share_of_traces_is_kept(trace):
    serve, kept = trace(keeps_all=False, telemetry={"sample": 0.5})
    for _ in range(60):
        serve({"program": "AEcho", "inputs": {"question": "q"}})
    assert 10 < len(kept) < 50


def test_a_program_without_traces_is_not_kept_where_others_have_them(trace):
    programs = {"Echo": {"telemetry": {"traces": "none"}}}
    serve, kept = trace(keeps_all=False, telemetry={"sample": 1}, **{"lambda": {"programs": programs}})
    serve.post("/Echo", {"question": "q"})
    assert kept == []
    serve.post("/AEcho", {"question": "q"})
    assert len(kept) == 1


def test_a_slow_call_is_kept(trace):
    serve, kept = trace(keeps_all=False, telemetry={"sample": 0, "slow_seconds": 0.000001})
    serve({"program": "AEcho", "inputs": {"question": "q"}})
    assert len(kept) == 1


def test_an_invalid_call_has_a_span_with_its_outcome(trace):
    serve, kept = trace()
    assert serve.post("/AEcho", {}).status == 422
    (spans,) = kept
    assert spans[1].attributes["dspy_lambda.outcome"] == "invalid_input"
    assert json.dumps([span.attributes for span in spans])


def test_health_checks_and_unknown_paths_leave_no_trace(trace):
    serve, kept = trace()
    assert serve.get("/health/live").status == 200
    assert serve.post("/Nothing", {}).status == 404
    assert kept == []


@pytest.mark.parametrize(("share", "flag"), [(0, "00"), (1, "01")])
def test_providers_are_told_what_the_ratio_decides(trace, models, share, flag):
    serve, _ = trace(keeps_all=False, telemetry={"sample": share})
    serve.post("/AEcho", {"question": "q"})
    (sent,) = models.stats()["traceparents"]
    assert sent.endswith(f"-{flag}")


def test_a_failed_call_names_what_the_program_raised(trace):
    raises = ECHO.replace("class Echo", "class Raises").replace(
        "return self.predict(question=question)", "return 1 / 0"
    )
    serve, kept = trace({"raises": raises, **MODULES})
    assert serve.post("/Raises", {"question": "q"}).status == 500
    root, call, *_ = kept[0]
    assert (root.error, call.error) == ("ZeroDivisionError", "ZeroDivisionError")
