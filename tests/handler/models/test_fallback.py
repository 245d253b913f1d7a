import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.models.fallback import _for_model, _in_time
from dspy_lambda.models.registry import ProgramLM
from tests.support import AECHO, ECHO, Context, failures, sqs, without_retries

CHEAP = {"model": "openai/cheap", "env": "OPENAI_API_KEY", "cache": False, "fallback": ["strong"]}
STRONG = {"model": "openai/strong", "env": "OPENAI_API_KEY", "cache": False}
LAST = {"model": "openai/last", "env": "OPENAI_API_KEY", "cache": False}
FAULTS = {
    "rate_limit": {"rate_limit_rate": 1, "retry_after_seconds": 3600},
    "context_window": {"failure": "context_length"},
    "content_filter": {"failure": "content_filter"},
}
BOTH = pytest.mark.parametrize("program", ["Echo", "AEcho"])


@pytest.fixture
def make_tiers(make_project, make_serve):
    """Serve Echo and AEcho on `cheap`, with these options of it."""

    def make(modules=None, **cheap):
        registry = {"cheap": {**CHEAP, **cheap}, "strong": STRONG, "last": LAST}
        config = {"models": {"default": "cheap", "registry": registry}}
        return make_serve(make_project(modules or {"echo": ECHO, "aecho": AECHO}, **config))

    return make


def lines(logged, message="fell back to another model"):
    return [line for line in logged.lines if line.get("message") == message]


@BOTH
@pytest.mark.parametrize("reason", FAULTS)
def test_a_failure_is_answered_by_the_next_model_counted_and_logged(make_tiers, models, records, program, reason):
    serve = make_tiers()
    models.behave(models={"cheap": FAULTS[reason]})
    answer = serve.post(f"/{program}", {"question": "q"})
    assert (answer.status, b"strong" in answer.body) == (200, True)
    assert models.stats()["per_model"] == {"cheap": 1, "strong": 1}
    logged = records()
    (line,) = lines(logged)
    assert (line["alias"], line["next_alias"], line["reason"]) == ("cheap", "strong", reason)
    (call,) = logged.calls
    assert (call["fallbacks"], call["outcome"], line["program"]) == (1, "success", program)
    assert logged.values("Fallbacks") == [1]
    assert call["input_tokens"] == models.stats()["prompt_tokens"]


@BOTH
@pytest.mark.parametrize("fault", ["error", "reset", "refused"])
def test_outages_and_refused_prompts_are_answered_by_the_next_model(make_tiers, models, records, program, fault):
    serve = without_retries(make_tiers())
    models.behave(models={"cheap": {"failure": fault}})
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    (line,) = lines(records())
    assert line["reason"] == ("content_filter" if fault == "refused" else "outage")


@BOTH
def test_retries_of_an_outage_come_before_the_fallback(make_tiers, models, program):
    serve = make_tiers()
    for lm in serve.environment.models.values():
        lm.num_retries = 1
    models.behave(models={"cheap": {"error_rate": 1}})
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    assert models.stats()["per_model"] == {"cheap": 2, "strong": 1}


@BOTH
@pytest.mark.parametrize(
    ("reason", "fault", "status"),
    [
        ("rate_limit", FAULTS["rate_limit"], 429),
        ("outage", {"error_rate": 1}, 502),
        ("context_window", {"failure": "context_length"}, 502),
        ("content_filter", {"failure": "refused"}, 502),
        ("content_filter", {"failure": "content_filter"}, 502),
    ],
)
def test_each_reason_can_be_switched_off(make_tiers, models, records, program, reason, fault, status):
    others = sorted({"rate_limit", "outage", "timeout", "context_window", "content_filter"} - {reason})
    serve = without_retries(make_tiers(fallback_on=others))
    models.behave(models={"cheap": fault})
    assert serve.post(f"/{program}", {"question": "q"}).status == status
    assert models.stats()["per_model"] == {"cheap": 1}
    logged = records()
    assert (lines(logged), logged.values("Fallbacks")) == ([], [])


@BOTH
def test_a_model_that_uses_up_its_share_of_the_time_is_abandoned_for_the_next(make_tiers, models, records, program):
    serve = make_tiers(timeout_share=0.05)
    models.behave(models={"cheap": {"hang_rate": 1}})
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=20_000)).status == 200
    logged = records()
    (line,), (call,) = lines(logged), logged.calls
    assert line["reason"] == "timeout"
    assert (call["fallbacks"], call["lm_calls"], call["lm_calls_abandoned"]) == (1, 1, 1)


@BOTH
def test_the_share_includes_retries_and_their_pauses(make_tiers, models, program):
    serve = make_tiers(timeout_share=0.05)  # less than the shortest pause
    models.behave(models={"cheap": {"error_rate": 1}})
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=20_000)).status == 200
    assert models.stats()["per_model"] == {"cheap": 1, "strong": 1}


@BOTH
def test_without_a_timeout_fallback_a_model_may_take_all_the_time(make_tiers, models, program):
    serve = make_tiers(timeout_share=0.05, fallback_on=["outage"])
    models.behave(models={"cheap": {"hang_rate": 1}})
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=2000)).status == 504
    assert models.stats()["per_model"] == {"cheap": 1}


@BOTH
def test_the_deadline_also_ends_a_fallback(make_tiers, models, records, program):
    serve = make_tiers(timeout_share=0.2)
    models.behave(hang_rate=1)
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=3000)).status == 504
    assert models.stats()["per_model"] == {"cheap": 1, "strong": 1}
    (call,) = records().calls
    assert (call["outcome"], call["fallbacks"]) == ("deadline", 1)


@BOTH
def test_the_list_is_tried_in_order_and_the_last_error_names_all_failures(make_tiers, models, records, program):
    serve = make_tiers(fallback=["strong", "last"])
    models.behave(rate_limit_rate=1, retry_after_seconds=3600)
    answer = serve.post(f"/{program}", {"question": "a secret question"})
    assert (answer.status, models.stats()["per_model"]) == (429, {"cheap": 1, "strong": 1, "last": 1})
    logged = records()
    assert [(line["alias"], line["next_alias"]) for line in lines(logged)] == [("cheap", "strong"), ("strong", "last")]
    (end,) = lines(logged, "every model of a fallback list failed")
    assert end["failures"] == [
        {"alias": "cheap", "reason": "rate_limit"},
        {"alias": "strong", "reason": "rate_limit"},
        {"alias": "last", "reason": "LMRateLimitError"},
    ]
    assert "secret question" not in str(logged.lines)


def test_a_fallbacks_own_list_is_not_tried(make_project, make_serve, models):
    registry = {"cheap": CHEAP, "strong": {**STRONG, "fallback": ["last"]}, "last": LAST}
    serve = make_serve(make_project({"echo": ECHO}, models={"default": "cheap", "registry": registry}))
    models.behave(rate_limit_rate=1, retry_after_seconds=3600)
    assert serve.post("/Echo", {"question": "q"}).status == 429
    assert set(serve.environment.models) == {"cheap", "strong"}
    assert models.stats()["per_model"] == {"cheap": 1, "strong": 1}


@BOTH
def test_cached_answers_of_both_models_are_used(make_project, make_serve, models, records, program):
    registry = {"cheap": {**CHEAP, "cache": True}, "strong": {**STRONG, "cache": True}}
    config = {"models": {"default": "cheap", "registry": registry}}
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **config))
    question = {"question": f"asked by {program} at {time.monotonic()}"}
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    for _ in range(2):
        assert serve.post(f"/{program}", question).status == 200
    assert models.stats()["per_model"] == {"cheap": 2, "strong": 1}
    assert [call["cache_hits"] for call in records().calls] == [0, 1]
    models.behave()
    for _ in range(2):
        assert b"cheap" in serve.post(f"/{program}", question).body
    assert models.stats()["per_model"] == {"cheap": 1}


@BOTH
def test_a_batch_on_a_tier_with_rate_limits_succeeds_and_every_fallback_and_token_is_counted(
    make_tiers, models, records, program
):
    serve = make_tiers()
    models.behave(faulty_model="cheap", rate_limit_rate=0.5, retry_after_seconds=3600, seed=1)
    bodies = [{"program": program, "inputs": {"question": f"q{number}"}} for number in range(40)]
    assert failures(serve(sqs(*bodies))) == []
    logged, seen = records(), models.stats()
    assert seen["per_model"]["cheap"] == 40
    assert sum(logged.values("Fallbacks")) == len(lines(logged)) == seen["per_model"]["strong"] > 0
    assert sum(call["input_tokens"] for call in logged.calls) == seen["prompt_tokens"]
    assert sum(call["output_tokens"] for call in logged.calls) == seen["completion_tokens"]


MANY = """
import asyncio, threading

class Many(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer", n=2)
    def forward(self, question: str):
        pairs = [(self.predict, dspy.Example(question=question).with_inputs("question")) for _ in range(3)]
        found = [one.answer for one in dspy.Parallel(num_threads=3)(pairs)]
        lm = dspy.settings.lm
        thread = threading.Thread(target=lambda: found.extend(lm("in a thread")))
        thread.start()
        thread.join()
        return found

class AMany(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer", n=2)
    async def aforward(self, question: str):
        found = await asyncio.gather(*(self.predict.acall(question=question) for _ in range(3)))
        return [one.answer for one in found]
"""


@pytest.mark.parametrize(("program", "calls", "requests"), [("Many", 4, 7), ("AMany", 3, 6)])
def test_fallbacks_in_threads_and_gather_belong_to_their_call(make_tiers, models, records, program, calls, requests):
    serve = make_tiers({"many": MANY})
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    answer = serve.post(f"/{program}", {"question": "q"})
    assert (answer.status, answer.body.count(b"strong")) == (200, calls)
    assert models.stats()["per_model"] == {"cheap": calls, "strong": requests}
    logged = records()
    (call,) = logged.calls
    assert (call["fallbacks"], call["lm_calls"]) == (calls, calls)
    assert call["input_tokens"] == models.stats()["prompt_tokens"]
    assert {line["function_request_id"] for line in lines(logged)} == {call["function_request_id"]}


STREAMS = """
class Streams(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    async def aforward(self, question: str):
        listen = [dspy.streaming.StreamListener(signature_field_name="answer")]
        found = []
        streamed = dspy.streamify(self.predict, stream_listeners=listen, is_async_program=True)
        async for one in streamed(question=question):
            found.append(one.answer if isinstance(one, dspy.Prediction) else one.chunk)
        return found
"""


@pytest.mark.parametrize(("fault", "answers"), [("rate_limit", b"strong"), ("content_filter", b"cheap")])
def test_a_stream_falls_back_only_before_its_first_chunk(make_tiers, models, fault, answers):
    serve = make_tiers({"streams": STREAMS})
    models.behave(models={"cheap": {"failure": fault}})
    answer = serve.post("/Streams", {"question": "q"})
    assert answer.status == 200
    assert json.loads(answer.body)["result"][-1].encode().startswith(answers) or answers in answer.body
    assert models.stats()["per_model"] == ({"cheap": 1, "strong": 1} if answers == b"strong" else {"cheap": 1})


def test_a_stream_that_does_not_begin_within_its_share_is_replaced(make_tiers, models, records):
    serve = make_tiers({"streams": STREAMS}, timeout_share=0.05)
    models.behave(faulty_model="cheap", hang_rate=1)
    assert b"strong" in serve.post("/Streams", {"question": "q"}, context=Context(remaining_ms=20_000)).body
    assert [line["reason"] for line in lines(records())] == ["timeout"]


@pytest.mark.parametrize("may_go_on", [True, False])
def test_a_share_does_not_end_a_stream_that_has_begun(may_go_on):
    turns = SimpleNamespace(share_ends=0.0, can_go_on=lambda: may_go_on)
    work = _in_time(asyncio.sleep(0.01, "answered"), turns)
    if may_go_on:
        with pytest.raises(DeadlineExceeded):
            asyncio.run(work)
    else:
        assert asyncio.run(work) == "answered"


COPIES = """
class Copies(dspy.Module):
    def forward(self, question: str):
        lm = dspy.settings.lm
        found = [lm.copy(rollout_id=i, temperature=1.0)(question)[0] for i in (1, 2, 2)]
        return [*found, len(lm.history)]
"""


def test_options_that_a_program_set_on_its_copy_of_the_lm_also_apply_to_the_next_model(
    make_project, make_serve, models
):
    registry = {"cheap": {**CHEAP, "cache": True}, "strong": {**STRONG, "cache": True}}
    serve = make_serve(make_project({"copies": COPIES}, models={"default": "cheap", "registry": registry}))
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    assert serve.post("/Copies", {"question": f"q {time.monotonic()}"}).status == 200
    assert models.stats()["per_model"] == {"cheap": 3, "strong": 2}  # one for each rollout


def test_the_next_models_tokens_count_against_its_own_limit(make_project, make_serve, models):
    registry = {"cheap": {**CHEAP, "tokens_per_minute": 1}, "strong": STRONG}
    serve = make_serve(make_project({"echo": ECHO}, models={"default": "cheap", "registry": registry}))
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 200
    assert models.stats()["per_model"] == {"cheap": 2, "strong": 2}


def test_a_models_own_limit_in_this_process_is_a_rate_limit(make_project, make_serve, models, records):
    registry = {"cheap": {**CHEAP, "requests_per_minute": 1}, "strong": STRONG}
    serve = make_serve(make_project({"echo": ECHO}, models={"default": "cheap", "registry": registry}))
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 200
    assert models.stats()["per_model"] == {"cheap": 1, "strong": 1}
    assert [line["reason"] for line in lines(records())] == ["rate_limit"]


RAISES = """
class Raises(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    def forward(self, question: str):
        self.predict(question=question)
        return dspy.Parallel(num_threads=1, max_errors=1)([(lambda: 1 / 0, {})])
"""


def test_a_failure_that_the_next_model_made_good_is_not_the_reason_of_a_later_error(make_tiers, models, records):
    serve = make_tiers({"raises": RAISES})
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    assert serve.post("/Raises", {"question": "q"}).status == 500
    (call,) = records().calls
    assert (call["outcome"], call["fallbacks"]) == ("program_error", 1)


CATCHES = """
class Catches(dspy.Module):
    def forward(self, question: str):
        try:
            return dspy.settings.lm(question)[0]
        except dspy.LMRateLimitError as error:
            return error.__notes__
"""


def test_the_last_error_has_a_note_of_all_failures(make_tiers, models):
    serve = make_tiers({"catches": CATCHES})
    models.behave(rate_limit_rate=1)
    for lm in serve.environment.models.values():
        lm.num_retries = 0
    answer = serve.post("/Catches", {"question": "q"})
    assert json.loads(answer.body)["result"] == ["Models tried: cheap (rate_limit), strong (LMRateLimitError)."]


REQUESTS = """
from dspy.lm15 import Message, Request

class Requests(dspy.Module):
    def forward(self, question: str):
        lm = dspy.settings.lm
        request = Request(model=lm.model, messages=(Message.user(question),))
        return [lm(request).text, lm(request=request).text]
"""


def test_a_request_of_lm15_goes_to_the_next_model(make_tiers, models):
    serve = make_tiers({"requests": REQUESTS})
    models.behave(models={"cheap": {"rate_limit_rate": 1}})
    assert serve.post("/Requests", {"question": "q"}).body.count(b"strong") == 2


@pytest.mark.parametrize(
    ("model", "wanted"),
    [("openai/gpt-4.1-nano", {"type": "json_schema"}), ("openai/gpt-4-turbo", {"type": "json_object"})],
)
def test_a_schema_becomes_plain_json_for_a_model_that_takes_none(model, wanted):
    options = {"response_format": {"type": "json_schema"}, "n": 2}
    adjusted = _for_model(ProgramLM(model, api_key="none"), options)
    assert adjusted == {"response_format": wanted, "n": 2}


def test_a_format_is_left_to_the_prompt_for_a_model_that_may_not_take_one():
    options = {"response_format": {"type": "json_object"}, "n": 2}
    assert _for_model(ProgramLM("openai/self-hosted", api_key="none"), options) == {"n": 2}
