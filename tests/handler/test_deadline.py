"""Nothing starts after the deadline, and what is answered after it is counted."""

import time

import pytest

from dspy_lambda.deadline import DEADLINE, check_deadline, seconds_left
from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.provider_bounds import ProviderBounds, bound_provider_calls
from tests.support import ECHO, Context, Records, failures, sqs, wait_until

PROGRAMS = """
import asyncio, threading, time

class Loops(dspy.Module):
    def forward(self, n: int = 0):
        for k in range(40):
            try:
                dspy.settings.lm(f"q{n}-{k}")
            except BaseException:
                time.sleep(0.02)

class ALoops(dspy.Module):
    async def aforward(self, n: int = 0):
        for k in range(40):
            try:
                await dspy.settings.lm.acall(f"q{n}-{k}")
            except (Exception, asyncio.CancelledError):
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    pass

class Fans(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, n: int = 0):
        examples = [(self.predict, {"question": f"q{n}-{k}"}) for k in range(40)]
        return {"answers": len(dspy.Parallel(num_threads=2, disable_progress_bar=True)(examples))}

class Threads(dspy.Module):
    def forward(self, n: int = 0):
        lm = dspy.settings.lm
        def work():
            for k in range(40):
                try:
                    lm(f"q{n}-{k}")
                except BaseException:
                    time.sleep(0.02)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()

class Background(dspy.Module):
    async def aforward(self, n: int = 0):
        async def work():
            for k in range(40):
                try:
                    await asyncio.shield(dspy.settings.lm.acall(f"q{n}-{k}"))
                except (Exception, asyncio.CancelledError):
                    pass
        self.task = asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(60)
"""
NAMES = ["Loops", "ALoops", "Fans", "Threads", "Background"]


@pytest.mark.parametrize("name", NAMES)
def test_no_model_is_called_after_the_deadline_and_every_answer_counts(make_project, make_serve, models, records, name):
    serve = make_serve(make_project({"programs": PROGRAMS, "echo": ECHO}))
    serve({"program": "Echo", "inputs": {"question": "warm"}})
    records()
    models.behave(delay_seconds=0.15)
    batch = sqs(*({"program": name, "inputs": {"n": n}} for n in range(3)))
    assert failures(serve(batch, Context(1000))) == ["m0", "m1", "m2"]
    wait_until(lambda: models.stats()["in_flight"] == 0)  # what was sent in time may arrive later
    sent = models.stats()["requests"]
    # What is left of it would go on in the next invocation.
    assert failures(serve(sqs({"program": "Echo", "inputs": {"question": "next"}}))) == []
    time.sleep(0.6)
    found = models.stats()
    assert found["requests"] == sent + 1  # the next invocation's own
    counted, asked = [], []

    def is_counted():
        counted.extend(line for line in records().lines if line.get("message") in ("program call", "late model call"))
        asked[:] = [line["lm_calls"] + line.get("lm_calls_abandoned", 0) for line in counted]
        return sum(asked) >= found["requests"]

    wait_until(is_counted)
    # A request may be given up just before it is sent.
    assert sum(asked) <= found["requests"] + 3
    if not any(line.get("lm_calls_abandoned") for line in counted):
        assert sum(line.get("input_tokens", 0) for line in counted) == found["prompt_tokens"]
        assert sum(line.get("output_tokens", 0) for line in counted) == found["completion_tokens"]


def test_a_late_answer_has_a_record_and_metrics_of_its_own(make_project, make_serve, models, records):
    serve = make_serve(make_project({"echo": ECHO}))
    bound_provider_calls(ProviderBounds(late_seconds=60))
    models.behave(delay_seconds=2)
    context = Context(1000)
    with pytest.raises(DeadlineExceeded):
        serve({"inputs": {"question": "q"}}, context)
    (call,) = records().calls
    assert (call["outcome"], call["lm_calls"], call["input_tokens"]) == ("deadline", 0, 0)
    lines = []
    wait_until(lambda: lines.extend(records().lines) or any("LateAnswers" in line for line in lines))
    logged, found = Records(lines), models.stats()
    (line,) = [line for line in lines if line.get("message") == "late model call"]
    assert line["function_request_id"] == context.aws_request_id
    assert line["input_tokens"] == found["prompt_tokens"] > 0
    assert logged.values("InputTokens") == [found["prompt_tokens"]]
    assert sum(logged.values("LateAnswers")) == 1


def test_a_deadline_is_checked_in_its_context():
    check_deadline()
    assert seconds_left() is None
    token = DEADLINE.set(time.monotonic() + 60)
    check_deadline()
    assert 0 < seconds_left() <= 60
    DEADLINE.reset(token)
    token = DEADLINE.set(time.monotonic() - 1)
    assert seconds_left() == 0
    with pytest.raises(DeadlineExceeded):
        check_deadline()
    DEADLINE.reset(token)
