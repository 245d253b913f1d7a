"""What an environment offers to code outside calls: a program's `__init__`, and threads that it starts."""

import os

import dspy
import pytest

from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError
from dspy_lambda.programs.discovery import default_lm, set_default_lm
from tests.support import ECHO, Serve

REGISTRY = {
    "fast": {"model": "openai/fast", "env": "FAST_KEY", "cache": False},
    "strong": {"model": "openai/strong", "env": "STRONG_KEY", "cache": False},
}
MODELS = {"default": "fast", "registry": REGISTRY}
KEYS = {"FAST_KEY": "k", "STRONG_KEY": "k"}
KEEPS = """
AT_IMPORT = dspy.settings.lm
class {name}(dspy.Module):
    def __init__(self):
        super().__init__()
        self.lm = dspy.settings.lm.copy(temperature=0.5)
        self.predict = dspy.Predict("question -> answer")
        self.predict.lm = dspy.settings.lm
    def forward(self, question: str) -> list:
        with dspy.context(lm=self.lm):
            other = dspy.Predict("question -> answer")
            return [self.predict(question=question).answer, other(question=question).answer]
"""
THREADS = """
import threading
class Threads(dspy.Module):
    def forward(self, question: str) -> list:
        found = []
        def ask():
            try:
                found.append(dspy.Predict("question -> answer")(question=question).answer)
            except Exception as error:
                found.append(type(error).__name__)
            found.append(len(dspy.settings.trace))
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return found
"""


@pytest.fixture(autouse=True)
def nothing_placed():
    set_default_lm(None)
    yield
    set_default_lm(None)


@pytest.mark.parametrize("only", [{}, {"DSPY_LAMBDA_PROGRAM": "Strong"}])
def test_a_program_is_created_with_its_own_models_lm(make_project, make_serve, records, only):
    project = make_project(
        {"fast": KEEPS.format(name="Fast"), "strong": KEEPS.format(name="Strong")},
        models=MODELS,
        program_models={"Strong": "strong"},
    )
    serve = make_serve(project, **KEYS, **only)
    for name in serve.environment.programs:
        model = name.lower()
        answer = serve({"program": name, "inputs": {"question": "q"}})
        assert answer["outputs"] == {"answer": [f"{model}: q"] * 2}
    logged = records()
    assert [call["lm_calls"] for call in logged.calls] == [2] * len(serve.environment.programs)
    assert not [line for line in logged.lines if line.get("message") == "model call outside any program call"]


@pytest.mark.parametrize(("only", "model"), [({}, "fast"), ({"DSPY_LAMBDA_PROGRAM": "Threads"}, "strong")])
def test_a_programs_own_thread_has_a_model_and_its_usage_is_logged(make_project, make_serve, records, only, model):
    project = make_project({"threads": THREADS, "echo": ECHO}, models=MODELS, program_models={"Threads": "strong"})
    serve = make_serve(project, **KEYS, **only)
    outputs = serve({"program": "Threads", "inputs": {"question": "q"}})["outputs"]
    assert list(outputs.values()) == [[f"{model}: q", 0]]  # and no trace that would grow
    logged = records()
    (call,) = logged.calls
    assert call["lm_calls"] == 0
    (line,) = [line for line in logged.lines if line.get("message") == "model call outside any program call"]
    assert (line["program"], line["function_request_id"]) == ("Threads", call["function_request_id"])
    assert (line["lm_calls"], line["input_tokens"] > 0, line["output_tokens"] > 0) == (1, True, True)
    assert logged.values("OutputTokens", "Threads") == [line["output_tokens"], 0]
    assert logged.values("LateAnswers") == []


def test_the_usage_of_a_programs_own_lm_in_its_thread_is_logged(make_project, make_serve, records, models):
    source = THREADS.replace('"question -> answer")(', '"question -> answer")(lm=LM, ') + (
        f'LM = dspy.LM("openai/mine", api_key="k", api_base="{models.url}", cache=False)\n'
    )
    serve = make_serve(make_project({"threads": source}))
    assert list(serve({"inputs": {"question": "q"}})["outputs"].values()) == [["mine: q", 0]]
    assert [
        line["lm_calls"] for line in records().lines if line.get("message") == "model call outside any program call"
    ] == [1]


def test_a_programs_own_thread_does_not_wait_longer_than_a_call(make_project, make_serve, models):
    models.behave(rate_limit_rate=1, retry_after_seconds=3600)
    serve = make_serve(make_project({"threads": THREADS}))
    assert list(serve({"inputs": {"question": "q"}})["outputs"].values()) == [["LMRateLimitError", 0]]
    assert models.stats()["requests"] == 1


def test_an_lm_that_the_project_configures_is_kept(make_project, make_serve):
    source = 'dspy.configure(lm=dspy.LM("openai/mine"))\n' + KEEPS.format(name="Keeps")
    serve = make_serve(make_project({"keeps": source}))
    assert serve.environment.programs["Keeps"].instance.lm.model == "openai/mine"
    assert dspy.settings.lm.model == "openai/mine"
    dspy.configure(lm=default_lm())


def test_a_default_model_that_no_program_uses_needs_no_key(make_project, make_serve):
    project = make_project({"echo": ECHO}, models=MODELS, program_models={"Echo": "strong"})
    serve = make_serve(project, STRONG_KEY="k")
    assert list(serve.environment.models) == ["strong"]
    assert dspy.settings.lm is None
    with pytest.raises(ConfigError, match="STRONG_KEY is not set"):
        make_serve(project, FAST_KEY="k")


def test_apply_keys_updates_the_models_keys(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}, models=MODELS), **KEYS)
    assert dspy.settings.lm is serve.environment.models["fast"]
    serve.environment.apply_keys({"FAST_KEY": "new"})
    assert dspy.settings.lm.kwargs["api_key"] == "new"


def test_a_key_that_the_projects_code_sets_is_used(make_project, output, monkeypatch):
    source = 'import os\nos.environ["FAST_KEY"] = "mine"\n' + KEEPS.format(name="Keeps")
    monkeypatch.setenv("FAST_KEY", "before")
    project = make_project({"keeps": source}, models=MODELS)
    monkeypatch.setenv("DSPY_LAMBDA_PROJECT", str(project))
    environment = Environment(os.environ, output)
    assert environment.models["fast"].kwargs["api_key"] == "mine"
    assert environment.programs["Keeps"].instance.predict.lm is environment.models["fast"]
    Serve(environment).close()
