import json
import time

import dspy
import pytest

from dspy_lambda.errors import ConfigError
from tests.support import AECHO, ECHO, Context, failures, sqs, wait_until, without_retries

REGISTRY = {
    "fast": {"model": "openai/gpt-4.1-nano", "env": "FAST_KEY", "max_tokens": 50, "temperature": 0.5},
    "strong": {"model": "openai/gpt-4.1-mini", "env": "STRONG_KEY"},
    "own": {"model": "openai/own", "api_key": "literal", "api_base": "http://127.0.0.1:1/v1"},
}
MODELS = {"default": "fast", "registry": REGISTRY}


def test_only_models_in_use_are_created_and_need_their_key(make_project, make_serve):
    project = make_project({"echo": ECHO, "aecho": AECHO}, models=MODELS, program_models={"AEcho": "strong"})
    serve = make_serve(project, DSPY_LAMBDA_PROGRAM="Echo", FAST_KEY="k")
    (lm,) = serve.environment.models.values()
    assert (lm.model, lm.kwargs["max_tokens"], lm.kwargs["temperature"]) == ("openai/gpt-4.1-nano", 50, 0.5)
    with pytest.raises(ConfigError, match=r"models\.registry\.strong\.env: .* STRONG_KEY is not set"):
        make_serve(project, FAST_KEY="k")


def test_the_timeout_is_the_functions_and_a_literal_key_is_used_for_a_local_server(make_project, make_serve):
    settings = {"programs": {"Echo": {"timeout_seconds": 7}}}
    project = make_project({"echo": ECHO}, models={**MODELS, "default": "own"}, **{"lambda": settings})
    serve = make_serve(project, DSPY_LAMBDA_API_BASE="")
    (lm,) = serve.environment.models.values()
    assert (lm.kwargs["timeout"], lm.kwargs["api_key"]) == (7, "literal")
    assert lm.kwargs["api_base"] == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize("limit", [{}, {"max_parallel_requests": 1}])
def test_a_deep_copied_module_keeps_connections_and_limit(make_project, make_serve, models, caplog, limit):
    source = """
    class Copies(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        def forward(self, question: str):
            first = self.predict.deepcopy()
            first.set_lm(dspy.settings.lm)
            return [first.deepcopy()(question=question).answer for _ in range(3)]
    """
    registry = {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False, **limit}}
    serve = make_serve(make_project({"copies": source}, models={"default": "fast", "registry": registry}))
    for _ in range(3):
        serve({"inputs": {"question": "q"}})
    assert models.stats()["connections"] == 1
    if limit:
        models.behave(delay_seconds=0.05)
        assert failures(serve(sqs(*[{"question": "q"}] * 3))) == []
        assert models.stats()["peak_in_flight"] == 1
    assert "Failed to deep copy" not in caplog.text


def test_settings_that_dspy_refuses_are_a_config_error_with_the_key(make_project, make_serve):
    registry = {"fast": {"model": "openai/gpt-5-mini", "temperature": 0.2}}
    project = make_project({"echo": ECHO}, models={"default": "fast", "registry": registry})
    with pytest.raises(ConfigError, match=r"models\.registry\.fast: .*temperature"):
        make_serve(project)


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_a_retry_that_would_miss_the_deadline_becomes_a_429(make_project, make_serve, models, program):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    models.behave(rate_limit_rate=1, retry_after_seconds=200)
    begin = time.monotonic()
    answer = serve.post(f"/{program}", {"question": "q"}, context=Context())
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "200")
    assert time.monotonic() - begin < 20  # instead of at the deadline
    assert models.stats()["requests"] == 1


@pytest.mark.parametrize("seconds", ["1e308", "9" * 400])
def test_an_invalid_retry_after_of_a_provider_is_not_passed_on(make_project, make_serve, models, seconds):
    serve = without_retries(make_serve(make_project({"aecho": AECHO})))
    models.behave(rate_limit_rate=1, retry_after_seconds=seconds)
    answer = serve.post("/AEcho", {"question": "q"})
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "1")


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_a_transient_failure_is_retried(make_project, make_serve, models, records, program):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    models.behave(rate_limit_rate=0.5, retry_after_seconds=0, seed=1)  # the first draw is below 0.5, the second above
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    assert models.stats()["requests"] == 2


@pytest.mark.parametrize("retry_after", [None, 0, 1e308])
@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_a_retry_waits_at_least_a_second(make_project, make_serve, models, program, retry_after):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    for lm in serve.environment.models.values():
        lm.num_retries = 1
    models.behave(rate_limit_rate=1, retry_after_seconds=retry_after)
    assert serve.post(f"/{program}", {"question": "q"}).status == 429
    first, second = models.stats()["started"]
    assert second - first >= 1


MANY = """
def options(retries):
    return {"lm": dspy.settings.lm if retries is None else dspy.settings.lm.copy(num_retries=retries)}

class Many(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer", n=4)
    def forward(self, question: str, retries: int | None = None) -> dict:
        return {"answers": self.predict(question=question, **options(retries)).completions.answer}

class AMany(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer", n=4)
    async def aforward(self, question: str, retries: int | None = None) -> dict:
        found = await self.predict.acall(question=question, **options(retries))
        return {"answers": found.completions.answer}
"""


@pytest.mark.parametrize("program", ["Many", "AMany"])
def test_a_failure_retries_one_candidate_instead_of_all(make_project, make_serve, models, records, program):
    serve = make_serve(make_project({"many": MANY}))
    models.behave(error_rate=0.35, seed=2)  # the third candidate fails twice, and the fourth does not
    answer = serve.post(f"/{program}", {"question": "q"})
    assert json.loads(answer.body) == {"answers": ["gpt-4.1-nano: q"] * 4}
    stats, (call,) = models.stats(), records().calls
    assert (stats["requests"], stats["answered"], call["lm_calls"]) == (6, 4, 1)
    assert (call["input_tokens"], call["output_tokens"]) == (stats["prompt_tokens"], stats["completion_tokens"])


@pytest.mark.parametrize("program", ["Many", "AMany"])
def test_answers_of_an_lm_call_that_finally_fails_are_counted(make_project, make_serve, models, records, program):
    serve = make_serve(make_project({"many": MANY}))
    models.behave(error_rate=0.35, seed=2)
    assert serve.post(f"/{program}", {"question": "q", "retries": 0}).status == 502
    stats, (call,) = models.stats(), records().calls
    assert (stats["answered"], call["lm_calls"]) == (2, 1)
    assert (call["input_tokens"], call["output_tokens"]) == (stats["prompt_tokens"], stats["completion_tokens"])
    assert call["cost_usd"] > 0


@pytest.mark.parametrize("program", ["Many", "AMany"])
def test_answers_before_the_deadline_are_counted_even_if_others_are_missing(
    make_project, make_serve, models, records, program
):
    serve = make_serve(make_project({"many": MANY}))
    models.behave(hang_rate=0.35, seed=2)
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=2500)).status == 504
    paid = models.stats()["prompt_tokens"]
    assert paid > 0
    late = []

    def is_counted():
        late.extend(line for line in records().lines if line.get("message") == "late model call")
        return sum(line.get("input_tokens", 0) for line in late) >= paid

    wait_until(is_counted)
    assert sum(line.get("input_tokens", 0) for line in late) == paid


ASKS = """
from dspy.utils.callback import BaseCallback

class Counts(BaseCallback):
    def __init__(self):
        self.events = []
    def on_lm_start(self, call_id, instance, inputs):
        self.events.append("start")
    def on_lm_end(self, call_id, outputs, exception=None):
        self.events.append("end")

class Asks(dspy.Module):
    def forward(self, way: str) -> dict:
        counts = Counts()
        lm = dspy.settings.lm.copy(callbacks=[counts], **({"num_retries": 1} if way == "one retry" else {}))
        try:
            lm.forward("q") if way == "forward" else lm("q")
        except dspy.utils.exceptions.LMError:
            return {"events": counts.events}
        return {"events": [*counts.events, "answered"]}
"""


@pytest.mark.parametrize(
    ("way", "rate", "requests", "events"),
    [
        ("call", 0.5, 2, ["start", "end", "answered"]),
        ("forward", 0.5, 2, ["answered"]),
        ("one retry", 1, 2, ["start", "end"]),
    ],
)
def test_retries_use_the_lms_number_within_one_lm_call(make_project, make_serve, models, way, rate, requests, events):
    serve = make_serve(make_project({"asks": ASKS}))
    models.behave(error_rate=rate, seed=1)
    assert json.loads(serve.post("/Asks", {"way": way}).body) == {"events": events}
    assert models.stats()["requests"] == requests


@pytest.mark.parametrize("fault", ["unauthorized_rate"])
def test_a_rejected_request_is_not_retried(make_project, make_serve, models, fault):
    serve = make_serve(make_project({"echo": ECHO}))
    models.behave(**{fault: 1})
    assert serve.post("/Echo", {"question": "q"}).status == 502
    assert models.stats()["requests"] == 1


SIDE_BY_SIDE = """
class SideBySide(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judge = dspy.LM("openai/judge", api_key="k", cache=False, num_retries=0)
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> list:
        with dspy.context(lm=self.judge):
            return dspy.Parallel(num_threads=2, max_errors=1)([(self.predict, {"question": question})] * 2)
"""


def test_an_outage_of_a_programs_own_model_inside_parallel_is_a_model_error(
    make_project, make_serve, models, monkeypatch
):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.url)
    serve = make_serve(make_project({"side_by_side": SIDE_BY_SIDE}))
    models.behave(error_rate=1)
    assert serve.post("/SideBySide", {"question": "q"}).status == 502


OWN = """
class Own(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judge = dspy.LM("anthropic/judge", api_key="k", cache=False)
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dict:
        made = dspy.LM("openai/made", api_base="http://127.0.0.1:1/v1", api_key="k", cache=False, num_retries=0)
        with dspy.context(lm=self.judge):
            first = self.predict(question=question).answer
        with dspy.context(lm=made):
            return {"answers": [first, self.predict(question=question).answer]}
"""


def test_the_api_base_applies_to_a_programs_own_models(make_project, make_serve, models, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.url)
    serve = make_serve(make_project({"own": OWN}))
    answer = serve.post("/Own", {"question": "q"})
    assert json.loads(answer.body) == {"answers": ["judge: q", "made: q"]}


def test_without_an_api_base_a_programs_own_models_are_unchanged(make_project, make_serve, models, monkeypatch):
    monkeypatch.delenv("DSPY_LAMBDA_API_BASE", raising=False)
    assert dspy.LM("openai/made", api_base="http://127.0.0.1:1/v1").kwargs["api_base"] == "http://127.0.0.1:1/v1"
