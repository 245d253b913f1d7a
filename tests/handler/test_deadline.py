"""Nothing starts after the deadline, and what is answered after it is counted."""

import time

import pytest

from dspy_lambda.deadline import DEADLINE, check_deadline, seconds_left
from dspy_lambda.errors import DeadlineExceeded
from tests.support import ECHO, Context, failures, sqs

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
    begin = time.monotonic()
    batch = sqs(*({"program": name, "inputs": {"n": n}} for n in range(3)))
    assert failures(serve(batch, Context(1000))) == ["m0", "m1", "m2"]
    time.sleep(0.2)
    # What is left of it would go on in the next invocation.
    assert failures(serve(sqs({"program": "Echo", "inputs": {"question": "next"}}))) == []
    time.sleep(0.6)
    found = models.stats()
    deadline = begin + 0.8 + 0.05  # a request that was sent in time may arrive a moment later
    late = [started for started in found["started"] if started > deadline]
    assert len(late) == 1  # the next invocation's own
    logged = records().lines
    counted = [line for line in logged if line.get("message") in ("program call", "late model call")]
    abandoned = sum(line.get("lm_calls_abandoned", 0) for line in counted)
    # A request may be given up just before it is sent.
    assert found["requests"] <= sum(line["lm_calls"] for line in counted) + abandoned <= found["requests"] + 3
    if not abandoned:
        assert sum(line.get("input_tokens", 0) for line in counted) == found["prompt_tokens"]
        assert sum(line.get("output_tokens", 0) for line in counted) == found["completion_tokens"]


def test_a_late_answer_has_a_record_and_metrics_of_its_own(make_project, make_serve, models, records):
    serve = make_serve(make_project({"echo": ECHO}))
    models.behave(delay_seconds=0.7)
    context = Context(500)
    with pytest.raises(DeadlineExceeded):
        serve({"inputs": {"question": "q"}}, context)
    (call,) = records().calls
    assert (call["outcome"], call["lm_calls"], call["input_tokens"]) == ("deadline", 0, 0)
    time.sleep(0.8)
    logged = records()
    late = [line for line in logged.lines if line.get("message") == "late model call"]
    found = models.stats()
    if found["answered"]:
        (line,) = late
        assert line["function_request_id"] == context.aws_request_id
        assert line["input_tokens"] == found["prompt_tokens"]
        assert logged.values("InputTokens") == [found["prompt_tokens"]]
        assert sum(logged.values("LateAnswers")) == 1


def test_a_deadline_is_checked_in_its_context():
    check_deadline()
    assert seconds_left() is None
    token = DEADLINE.set(time.monotonic() + 60)
    check_deadline()
    assert 59 < seconds_left() <= 60
    DEADLINE.reset(token)
    token = DEADLINE.set(time.monotonic() - 1)
    assert seconds_left() == 0
    with pytest.raises(DeadlineExceeded):
        check_deadline()
    DEADLINE.reset(token)
