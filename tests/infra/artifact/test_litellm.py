import subprocess
import sys

import dspy
import pytest

from dspy_lambda_infra.artifact.litellm import uses_litellm, why_litellm
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART, ROOT
from tests.support import ECHO


@pytest.fixture
def why(make_project):
    """Return the reasons why a project's only program needs LiteLLM."""

    def ask(module=ECHO, **model):
        registry = {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", **model}}
        project = load_project(make_project({"echo": module}, models={"default": "fast", "registry": registry}))
        assert not project.failed
        (function,) = project.functions.values()
        return why_litellm(project, function)

    return ask


@pytest.mark.parametrize(
    "model",
    [
        "vertex_ai/gemini-3",
        "mistral/mistral-small",
        "together_ai/llama",
        "fireworks_ai/llama",
        "cohere/command",
        "sagemaker/endpoint",
        "huggingface/some/model",
    ],
)
def test_a_configured_model_without_a_native_dspy_engine_needs_litellm(why, model):
    assert why(model=model) == [f"models.registry.fast: {model}"]


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-4.1-nano",
        "anthropic/model",
        "gemini/gemini-3",
        "bedrock-chat:model",
        "bedrock-anthropic:model",
        "vertex:model",
    ],
)
def test_a_configured_model_with_a_native_dspy_engine_does_not_need_litellm(why, model):
    assert why(model=model) == []


def test_model_settings_can_require_litellm(why):
    assert why(model_type="text") == ["models.registry.fast: openai/gpt-4.1-nano"]
    assert why(model_type="responses") == []
    # Handler settings, which are never passed to dspy.LM.
    assert why(max_parallel_requests=3, requests_per_minute=60) == []
    assert why(api_base="http://models.internal/v1", max_tokens=20_000, temperature=1.0) == []


def test_other_programs_models_do_not_require_litellm(make_project):
    registry = {"fast": {"model": "openai/a"}, "strong": {"model": "cohere/b"}}
    modules = {"echo": ECHO, "other": ECHO.replace("Echo", "Other")}
    models = {"default": "fast", "registry": registry}
    project = load_project(make_project(modules, models=models, program_models={"Other": "strong"}))
    found = {name: why_litellm(project, function) for name, function in project.functions.items()}
    assert found == {"Echo": [], "Other": ["models.registry.strong: cohere/b"]}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, False),
        ({"timeout": 3, "n": 2, "api_base": "http://models.internal/v1"}, False),
        ({"max_parallel_requests": 2000, "timeout": 120}, False),
        ({"extra_headers": {"X-Team": "a"}}, True),
        ({"headers": {"X-Team": "a"}}, True),
        ({"organization": "a"}, True),
        ({"model_type": "text"}, True),
        ({"engine": "litellm"}, True),
    ],
)
def test_options_of_an_lm_in_code_can_require_litellm(options, needed):
    assert uses_litellm(dspy.LM("openai/gpt-4.1-nano", **options)) == needed


HELD = {
    "an attribute": ("self.judge = dspy.LM('cohere/b')", "judge"),
    "an attribute of another's": ("self.predict.lm = dspy.LM('cohere/b')", "predict.lm"),
    "a list": ("self.judges = [dspy.LM('openai/a'), dspy.LM('cohere/b')]", "judges"),
    "a tuple in a dict": ("self.judges = {'all': (dspy.LM('cohere/b'),)}", "judges"),
    "a sub-module": ("self.inner = Inner()", "inner.judge"),
    "a sub-module in a dict": ("self.inner = {'a': [Inner()]}", "inner[a][0].judge"),
    "set_lm": ("self.set_lm(dspy.LM('cohere/b'))", "predict.lm"),
}
MODULE = """
class _Inner(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judge = dspy.LM("cohere/b")

class Echo(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        {line}

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question)
"""


@pytest.mark.parametrize("place", HELD)
def test_an_lm_held_by_the_program_can_require_litellm(why, place):
    line, name = HELD[place]
    assert why(MODULE.format(line=line.replace("Inner", "_Inner"))) == [f"Echo.{name}: cohere/b"]


def test_an_lm_in_a_class_attribute_can_require_litellm(why):
    module = ECHO.replace("class Echo(dspy.Module):", "class Echo(dspy.Module):\n    judge = dspy.LM('cohere/b')\n")
    assert why(module) == ["Echo.judge: cohere/b"]


def test_a_module_level_lm_can_require_litellm(why):
    (reason,) = why("JUDGES = {'a': dspy.LM('cohere/b')}\n" + ECHO)
    assert reason.endswith(".modules.echo.JUDGES: cohere/b")


def test_singletons_with_parallel_requests_do_not_require_litellm(why):
    module = """
    FLASH = dspy.LM("openai/gpt-4.1-nano", max_parallel_requests=2000, timeout=120)
    class Team(dspy.Module):
        def __init__(self, fast_lm):
            super().__init__()
            self.search = dspy.ReAct("question -> answer", tools=[])
            self.search.set_lm(FLASH)
            self.join = dspy.Predict("question -> answer")
            self.join.set_lm(fast_lm)
        def forward(self, question: str) -> str:
            return self.join(question=question).answer
    """
    assert why(module) == []
    assert why(module.replace("openai/", "mistral/", 1))[0] == "Team.search.react.lm: mistral/gpt-4.1-nano"


def test_a_self_referencing_attribute_is_searched_once_for_lms(why):
    line = "self.all = [dspy.LM('cohere/b')]; self.all.append(self.all); self.map = {}; self.map[1] = {2: self.map}"
    assert why(MODULE.format(line=line)) == ["Echo.all: cohere/b"]


def test_attributes_that_are_not_lms_do_not_require_litellm(why):
    line = "self.judge = dspy.LM('openai/a'); self.name = 'cohere/b'; self.embed = dspy.Embedder(lambda texts: texts)"
    assert why(MODULE.format(line=line)) == []


@pytest.mark.parametrize(
    "model", ["openai/text-embedding-3-small", "bedrock/amazon.titan-embed-text-v2:0", "bedrock/cohere.embed-v4:0"]
)
def test_an_embedder_that_is_requested_natively_does_not_require_litellm(why, model):
    assert why(MODULE.format(line=f"self.embed = dspy.Embedder({model!r}, dimensions=256)")) == []


@pytest.mark.parametrize(
    ("model", "options"), [("voyage/voyage-3", ""), ("openai/text-embedding-3-small", ", api_version='2')")]
)
def test_any_other_hosted_embedder_requires_litellm(why, model, options):
    line = f"self.embed = dspy.Embedder({model!r}{options or ')'}"
    assert why(MODULE.format(line=line)) == [f"Echo.embed: {model}"]


def test_the_projects_own_lm_class_does_not_require_litellm(why):
    own = "class _Own(dspy.BaseLM):\n    pass\n"
    line = "self.judge = _Own('cohere/b')"
    assert why(own + MODULE.format(line=line)) == []


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"])
def test_a_gateway_in_this_machines_environment_does_not_require_litellm(why, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
    assert why() == []
    assert why(MODULE.format(line="self.judge = dspy.LM('anthropic/a')")) == []
    assert sys.modules["os"].environ[name] == "http://127.0.0.1:9/v1"


def test_finding_litellm_users_needs_no_key(why, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert why(env="A_KEY_THAT_IS_NOT_SET") == []


def test_an_lm_that_cannot_make_any_call_does_not_require_litellm(why):
    assert why(MODULE.format(line="self.judge = dspy.LM('openai/a', n=-1)")) == []


def test_finding_litellm_users_does_not_import_litellm():
    script = f"""
import sys
from dspy_lambda_infra.artifact.litellm import why_litellm
from dspy_lambda_infra.project import load_project
project = load_project(__import__("pathlib").Path({str(QUICKSTART)!r}))
print([why_litellm(project, function) for function in project.functions.values()])
assert not {{"litellm", "openai", "tiktoken"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[[], [], [], []]\n"), done.stderr


def test_a_fallback_may_need_litellm(make_project):
    registry = {
        "fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "fallback": ["spare"]},
        "spare": {"model": "mistral/mistral-small"},
    }
    project = load_project(make_project({"echo": ECHO}, models={"default": "fast", "registry": registry}))
    (function,) = project.functions.values()
    assert why_litellm(project, function) == ["models.registry.spare: mistral/mistral-small"]
