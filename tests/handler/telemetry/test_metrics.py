"""Metrics, read back from the log of the real handler: valid EMF, and equal to the records' sums."""

from __future__ import annotations

import time

import pytest

from dspy_lambda.provider_bounds import attempts
from dspy_lambda.telemetry.model_metrics import ModelNames, model_metrics
from dspy_lambda.telemetry.traces.spans import SERVER, Trace
from dspy_lambda.telemetry.units import UNITS
from tests.handler.telemetry.emf import check_emf
from tests.handler.telemetry.test_model_metrics import lm_call, program_call
from tests.support import AECHO, ECHO, failures, sqs, without_retries

PROGRAMS = """
class Twice(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    def forward(self, question: str) -> str:
        pairs = [(self.predict, {"question": f"{question} {n}"}) for n in range(2)]
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
        return "done"
class Fails(dspy.Module):
    def forward(self, question: str) -> str:
        raise ValueError(question)
"""
REGISTRY = {
    "fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False},
    "unpriced": {"model": "openai/no-model-of-this-name", "env": "OPENAI_API_KEY", "cache": False},
}
# Metric by the field of the record that it must equal.
SUMS = {
    "InputTokens": "input_tokens",
    "OutputTokens": "output_tokens",
    "CostUSD": "cost_usd",
    "LMCalls": "lm_calls",
    "Duration": "duration_ms",
    "UnpricedCalls": "unpriced_calls",
    "RecordAge": "record_age_ms",
    "Retries": "retries",
}


def batch(first: int, sent: float) -> dict:
    """A hundred records: seven of ten are answered, the others are invalid, fail, or have no known program."""
    bodies = []
    for number in range(first, first + 10):
        question = {"question": f"question {number}"}
        names = ["Echo", "AEcho", "Twice", "Echo", "AEcho", "Twice", "AEcho", "Fails", "Nobody"]
        bodies += [{"program": name, "inputs": question} for name in names] + [{"program": "Echo", "inputs": {}}]
    event = sqs(*bodies)
    for record in event["Records"]:
        record["attributes"]["SentTimestamp"] = str(int(sent * 1000))
    return event


def test_the_sums_of_all_metrics_equal_those_of_the_records_of_a_thousand_calls(
    make_project, make_serve, models, records
):
    config = {"models": {"default": "fast", "registry": REGISTRY}, "program_models": {"AEcho": "unpriced"}}
    serve = without_retries(make_serve(make_project({"echo": ECHO + AECHO + PROGRAMS}, **config)))
    records()
    reported = 0
    for number in range(10):
        models.behave(error_rate=0.1 if number % 2 else 0)
        reported += len(failures(serve(batch(10 * number, time.time() - 60))))
    logged = records()
    assert len(logged.calls) == 1000
    for program in {call["program"] for call in logged.calls}:
        calls = [call for call in logged.calls if call["program"] == program]
        for metric, field in SUMS.items():
            expected = sum(call.get(field) or 0 for call in calls)
            assert sum(logged.values(metric, program)) == pytest.approx(expected), (program, metric)
        assert sum(logged.values("Calls", program)) == len(calls)
        assert sum(logged.values("Errors", program)) == sum(call["level"] == "ERROR" for call in calls)
        assert sum(logged.values("RecordsFailed", program)) == sum(call["outcome"] != "success" for call in calls)
    assert sum(logged.values("RecordsFailed")) == reported == sum(c["outcome"] != "success" for c in logged.calls)
    outcomes = {call["outcome"] for call in logged.calls}
    assert outcomes == {"success", "model_error", "program_error", "invalid_input"}
    assert sum(logged.values("UnpricedCalls", "Echo")) == 0 < sum(logged.values("UnpricedCalls", "AEcho"))
    assert min(logged.values("RecordAge")) >= 60_000
    for blob in logged.metrics:
        check_emf(blob)


def test_metrics_of_models_are_valid_emf(serve, records):
    trace = Trace()
    call = program_call(trace, "Answer")
    for number in range(150):
        lm_call(call, f"m{number}", gen_ai__usage__input_tokens=10**9, dspy_lambda__cost_usd=1e-9)
    records()
    serve.environment.telemetry.emit_models(trace)
    blobs = records().metrics
    assert len(blobs) == 21 + 1  # twenty models, and `other` with 130 calls
    for blob in blobs:
        check_emf(blob)
        assert blob["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["program", "model", "service"]]


def test_every_metric_at_its_limits_is_one_valid_line(serve, records):
    records()
    serve.environment.telemetry.emit("Answer", {name: [123456.789] * 100 for name in UNITS})
    (blob,) = records().metrics
    check_emf(blob)


def test_an_invocation_without_lm_calls_has_no_metrics_of_models():
    trace = Trace()
    trace.start("invoke", SERVER, None, {})
    assert list(model_metrics(trace, ModelNames())) == []


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_repeated_requests_are_counted(make_project, make_serve, models, records, monkeypatch, program):
    monkeypatch.setattr(attempts, "_MAX_PAUSE_SECONDS", 0.01)
    serve = make_serve(make_project({"echo": ECHO + AECHO}))
    for lm in serve.environment.models.values():
        lm.num_retries = 2
    models.behave(error_rate=1)
    serve(sqs({"program": program, "inputs": {"question": "q"}}))
    models.behave()
    serve(sqs({"program": program, "inputs": {"question": "q"}}))
    logged = records()
    assert [call.get("retries") for call in logged.calls] == [2, None]
    assert logged.values("Retries") == [2]


def test_no_metric_of_a_record_is_made_up_from_an_unreadable_timestamp(serve, records):
    records()
    event = sqs(*[{"program": "Answer", "inputs": {"question": "q"}}] * 5)
    sent = ["", "yesterday", "1523232000000", str(int(time.time() * 1000) + 60_000), "9" * 30]
    for record, stamp in zip(event["Records"], sent, strict=True):
        record["attributes"]["SentTimestamp"] = stamp
    assert failures(serve(event)) == []
    assert records().values("RecordAge") == [0]  # the clocks differ
