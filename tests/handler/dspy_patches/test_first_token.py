"""The time to the first token, of answers that DSPy streams."""

from __future__ import annotations

import asyncio
import time

import dspy
import pytest

from dspy_lambda.dspy_patches.first_token import ATTRIBUTE, FIRST_TOKEN
from dspy_lambda.dspy_patches.patch import apply_patch
from dspy_lambda.telemetry.traces.spans import CLIENT, INTERNAL, SPAN, Span, Trace


def test_the_patch_fits_this_dspy():
    assert apply_patch(FIRST_TOKEN) is None


def lm_span(trace: Trace) -> Span:
    return trace.start("chat m", CLIENT, None, {"gen_ai.operation.name": "chat"})


def predict(models):
    lm = dspy.LM("openai/gpt-4.1-nano", api_key="k", api_base=models.url, cache=False)
    program = dspy.Predict("question -> answer")
    program.set_lm(lm)
    return program


@pytest.mark.parametrize("streams", [True, False])
def test_a_streamed_answer_has_it_and_another_has_not(models, streams):
    apply_patch(FIRST_TOKEN)
    models.behave(delay_seconds=0.05)
    program = predict(models)
    span = lm_span(Trace())

    async def call():
        SPAN.set(span)
        if not streams:
            return [await program.acall(question="q")]
        listeners = [dspy.streaming.StreamListener("answer")]
        return [part async for part in dspy.streamify(program, stream_listeners=listeners)(question="q")]

    begin = time.time_ns()
    parts = asyncio.run(call())
    assert isinstance(parts[-1], dspy.Prediction)
    # On the LM call's own span, if this process makes such spans.
    found = [one.attributes[ATTRIBUTE] for one in span.trace.spans if ATTRIBUTE in one.attributes]
    assert len(found) == streams
    assert all(40 < each <= (time.time_ns() - begin) / 1e6 for each in found)


def test_it_is_that_of_the_first_part():
    apply_patch(FIRST_TOKEN)
    from dspy.clients import execution

    call = lm_span(Trace())
    token = SPAN.set(call)
    execution.stream_emitted()
    first = call.attributes[ATTRIBUTE]
    call.start_ns -= 10**9
    execution.stream_emitted()
    assert call.attributes[ATTRIBUTE] == first
    SPAN.reset(token)


def test_a_stream_outside_any_lm_span_is_left_alone():
    apply_patch(FIRST_TOKEN)
    from dspy.clients import execution

    execution.stream_emitted()
    step = Trace().start("step", INTERNAL, None, {})
    token = SPAN.set(step)
    execution.stream_emitted()
    assert step.attributes == {}
    SPAN.reset(token)
