"""Metrics of models, from traces made by hand."""

from __future__ import annotations

from dspy_lambda.telemetry.model_metrics import MAX_MODELS, OTHER, ModelNames, model_metrics
from dspy_lambda.telemetry.traces.spans import CLIENT, INTERNAL, SERVER, Span, Trace
from dspy_lambda.telemetry.units import MODEL_UNITS

MS = 1_000_000


def program_call(trace: Trace, program: str) -> Span:
    root = trace.start("invoke", SERVER, None, {})
    about = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": program}
    call = root.child(f"invoke_workflow {program}", INTERNAL, about)
    call.program = program
    return call


def lm_call(parent: Span, alias: str | None = "fast", ms: int = 100, error: str | None = None, **more) -> Span:
    about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "openai/m", "dspy_lambda.attempts": 1}
    about |= {"dspy_lambda.alias": alias} if alias else {}
    span = parent.child("chat", CLIENT, about | {name.replace("__", "."): value for name, value in more.items()}, MS)
    span.end(error, MS + ms * MS)
    return span


def read(trace: Trace, names: ModelNames | None = None):
    return [(program, model, values) for program, model, values in model_metrics(trace, names or ModelNames())]


def test_measurements_are_one_value_per_call_and_counts_are_sums():
    trace = Trace()
    call = program_call(trace, "Answer").child("ChainOfThought", INTERNAL, {})
    lm_call(
        call,
        ms=100,
        gen_ai__usage__input_tokens=10,
        gen_ai__usage__output_tokens=3,
        dspy_lambda__cost_usd=0.5,
        dspy_lambda__time_to_first_token_ms=40.5,
    )
    lm_call(call, ms=200, dspy_lambda__retries=2, gen_ai__usage__input_tokens=20, gen_ai__usage__output_tokens=4)
    lm_call(call, ms=1, dspy_lambda__cache_hit=True, gen_ai__usage__input_tokens=0, gen_ai__usage__output_tokens=0)
    lm_call(call, ms=900, error="TimeoutError", dspy_lambda__retries=1)
    assert read(trace) == [
        (
            "Answer",
            "fast",
            {
                "ModelCalls": [4],
                "ModelErrors": [1],
                "ModelLatency": [100, 200],
                "TimeToFirstToken": [40.5],
                "ModelInputTokens": [10, 20, 0],
                "ModelOutputTokens": [3, 4, 0],
                "ModelCostUSD": [0.5],
                "ModelRetries": [3],
                "ModelCacheHits": [1],
            },
        )
    ]


def test_a_fallback_is_counted_for_the_model_that_failed():
    trace = Trace()
    call = program_call(trace, "Answer")
    lm_call(call, "fast", error="LMServerError")
    lm_call(call, "strong", dspy_lambda__fallback_from="fast", dspy_lambda__fallback_reason="outage")
    values = {model: values for _, model, values in read(trace)}
    assert values["fast"]["ModelFallbacks"] == [1]
    assert "ModelFallbacks" not in values["strong"]


def test_programs_and_models_are_apart():
    trace = Trace()
    first = program_call(trace, "First")
    lm_call(first.child("Predict", INTERNAL, {}))
    lm_call(first, None)
    lm_call(program_call(trace, "Second"))
    lm_call(trace.spans[0])
    assert {(program, model) for program, model, _ in read(trace)} == {
        ("First", "fast"),
        ("First", "openai/m"),
        ("Second", "fast"),
        ("unknown", "fast"),
    }


def test_more_than_a_hundred_calls_are_several_blobs():
    trace = Trace()
    call = program_call(trace, "Answer")
    for number in range(250):
        lm_call(call, ms=number)
    lm_call(call, "strong", dspy_lambda__fallback_from="fast")
    blobs = [values for _, model, values in read(trace) if model == "fast"]
    assert [len(values["ModelLatency"]) for values in blobs] == [100, 100, 50]
    assert sum(values["ModelCalls"][0] for values in blobs) == 250
    assert [values.get("ModelFallbacks") for values in blobs] == [[1], None, None]


def test_the_models_of_an_environment_are_bounded():
    names = ModelNames()
    first = [f"m{number}" for number in range(MAX_MODELS)]
    assert [names(model) for model in first] == first
    assert [names("one more"), names("m0"), names("another")] == [OTHER, "m0", OTHER]


def test_a_models_name_is_a_valid_dimension_value():
    names = ModelNames()
    assert names(":x") == "x"
    assert names("  ") == "unknown"
    assert names("modèle") == "mod?le"
    assert len(names("x" * 1000)) == 255


def test_spans_that_are_no_lm_calls_have_no_metrics():
    trace = Trace()
    program_call(trace, "Answer").child("execute_tool t", INTERNAL, {"gen_ai.operation.name": "execute_tool"})
    assert read(trace) == []


def test_every_metric_has_a_unit():
    trace = Trace()
    call = program_call(trace, "Answer")
    lm_call(
        call,
        gen_ai__usage__input_tokens=1,
        gen_ai__usage__output_tokens=1,
        dspy_lambda__cost_usd=1.0,
        dspy_lambda__time_to_first_token_ms=1.0,
        dspy_lambda__retries=1,
        dspy_lambda__fallback_from="fast",
    )
    lm_call(call, dspy_lambda__cache_hit=True)
    assert set().union(*(values for _, _, values in read(trace))) == set(MODEL_UNITS)


def test_a_model_that_completes_text_has_metrics_as_well():
    trace = Trace()
    lm_call(program_call(trace, "Answer"), gen_ai__operation__name="text_completion")
    ((program, model, values),) = read(trace)
    assert (program, model, values["ModelCalls"]) == ("Answer", "fast", [1])
