"""Spans of what programs do side by side, in threads, in tools, and when they are canceled."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.telemetry.traces.spans import CLIENT
from dspy_lambda.telemetry.traces.tracer import Tracer
from tests.handler.test_usage import TypeSafeClient
from tests.support import Context

FAN_OUT = """
import asyncio
import dspy.experimental
from dspy_lambda.patterns import fan_out

class Gather(dspy.Module):
    def __init__(self):
        super().__init__()
        self.steps = [dspy.ChainOfThought("question -> answer") for _ in range(3)]

    async def aforward(self, question: str):
        found = await asyncio.gather(*(step.acall(question=question) for step in self.steps))
        return dspy.Prediction(answer=str(len(found)))

class InThreads(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def forward(self, question: str):
        example = dspy.Example(question=question).with_inputs("question")
        found = dspy.Parallel(num_threads=3, disable_progress_bar=True)([(self.step, example)] * 3)
        return dspy.Prediction(answer=str(len(found)))

class Tools(dspy.Module):
    def __init__(self):
        super().__init__()
        self.tool = dspy.Tool(lambda city: f"rain in {city}", name="weather", desc="the weather", args={"city": {}})
        self.broken = dspy.Tool(lambda: 1 / 0, name="broken", desc="fails", args={})

    def forward(self, question: str):
        try:
            self.broken()
        except ZeroDivisionError:
            pass
        return dspy.Prediction(answer=self.tool(city="Rome"))

class OddLM(dspy.utils.DummyLM):
    fell_back = True

    @property
    def alias(self):
        raise RuntimeError("not this one")

class Odd(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def forward(self, question: str):
        with dspy.context(lm=OddLM([{"answer": "fine"}])):
            return self.step(question=question)
class Judges(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judge = dspy.experimental.TypeSafe(api_key="k", cache=False)

    def forward(self, question: str) -> float:
        return self.judge({"text": question}, {"fits": "Does it fit?"})["fits"]["noul"]

class Streams(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    async def aforward(self, question: str):
        stream = dspy.streamify(self.step, is_async_program=True)(question=question)
        async for part in stream:
            if isinstance(part, dspy.Prediction):
                return part
"""


@pytest.fixture
def trace(make_project, make_serve):
    """Call a program, and return the spans of the call."""
    assert patch_spans() == {}
    serve = make_serve(make_project({"steps": FAN_OUT}))
    kept = []
    serve.environment.telemetry.tracer = Tracer(serve.environment.config, kept.append, keeps_all=True)

    def run(program, **options):
        kept.clear()
        run.answer = serve.post(f"/{program}", {"question": "q"}, **options)
        (spans,) = kept
        return spans

    return run


def children(spans, parent):
    return [span for span in spans if span.parent_id == parent.span_id]


@pytest.mark.parametrize(("program", "step"), [("Gather", "ChainOfThought"), ("InThreads", "Predict")])
def test_steps_side_by_side_have_the_same_parent(trace, program, step):
    spans = trace(program)
    steps = [span for span in spans if span.name == step]
    assert len(steps) == 3
    assert len({span.parent_id for span in steps}) == 1
    for span in steps:
        below = children(spans, span)
        while below and below[0].kind != CLIENT:
            below = children(spans, below[0])
        assert [lm.attributes["gen_ai.request.model"] for lm in below] == ["gpt-4.1-nano"]
    assert all(span.error is None for span in spans)


def test_tools_have_spans_and_their_failures_a_word(trace):
    broken, tool = (span for span in trace("Tools") if span.attributes.get("gen_ai.operation.name") == "execute_tool")
    assert (broken.name, broken.error) == ("execute_tool broken", "ZeroDivisionError")
    assert (tool.name, tool.error) == ("execute_tool weather", None)


def test_a_call_of_typesafe_has_a_span_with_its_tokens(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "typesafe_sdk", SimpleNamespace(TypeSafeClient=TypeSafeClient))
    _, call, lm = trace("Judges")
    assert (lm.name, lm.kind, lm.parent_id) == ("chat jev-latest", CLIENT, call.span_id)
    assert lm.attributes["gen_ai.provider.name"] == "typesafe"
    assert (lm.attributes["gen_ai.usage.input_tokens"], lm.attributes["gen_ai.usage.output_tokens"]) == (95, 12)
    assert call.attributes["dspy_lambda.input_tokens"] == 95


def test_a_streamed_lm_call_is_in_its_programs_trace(trace):
    spans = trace("Streams")
    (lm,) = (span for span in spans if span.kind == CLIENT)
    assert lm.attributes["gen_ai.usage.output_tokens"] > 0
    assert lm.error is None


def test_a_call_cut_off_at_the_deadline_leaves_ended_spans(trace, models):
    models.behave(delay_seconds=60)
    spans = trace("Gather", context=Context(remaining_ms=600))
    errors = {span.name: span.error for span in spans}
    assert errors["invoke_workflow Gather"] == "DeadlineExceeded"
    assert errors["chat gpt-4.1-nano"] in ("canceled", "unfinished", "DeadlineExceeded")
    assert all(span.end_ns >= span.start_ns > 0 for span in spans)


def test_requests_to_providers_continue_the_trace(trace, models):
    spans = trace("Gather")
    sent = set(models.stats()["traceparents"])
    expected = {f"00-{span.trace.trace_id}-{span.span_id}-01" for span in spans if span.kind == CLIENT}
    assert sent == expected


def test_an_lm_whose_own_attributes_are_not_ours_does_not_fail_its_call(trace):
    spans = trace("Odd")
    assert (trace.answer.status, trace.answer.body) == (200, b'{"answer":"fine"}')
    assert [span.name for span in spans[1:3]] == ["invoke_workflow Odd", "Predict"]
