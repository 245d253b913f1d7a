import inspect
import shutil
import sys
import threading
import uuid

import pytest

from dspy_lambda.errors import ModelUnavailable
from dspy_lambda.models.bedrock.doors import route
from dspy_lambda_infra.project import load_project
from tests.conftest import ROOT
from tests.examples.scripted_model import ScriptedModel
from tests.support import PATIENCE_SECONDS, Context

PROJECT = ROOT / "examples" / "research-team"
FLASH, PRO = "gpt-4.1-nano", "gpt-4.1-mini"
VIEW = {"view": "Yes."}


@pytest.fixture
def model():
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture
def run(model, make_serve, monkeypatch):
    """Run a program of the example with what the model's script answers; return its outputs."""

    def run(program, **inputs):
        inputs = {
            name: f"{value} {uuid.uuid4()}" if isinstance(value, str) else value for name, value in inputs.items()
        }
        return serve({"program": program, "inputs": inputs}, Context(120_000))["outputs"]

    for name, value in (("OPENAI_API_KEY", "test-key"), ("DSPY_LAMBDA_API_BASE", model.url)):
        monkeypatch.setenv(name, value)  # where LMs that programs make themselves look
    forget()  # its LMs have the URL of an earlier test's model
    serve = make_serve(PROJECT, DSPY_LAMBDA_API_BASE=model.url)
    yield run
    for lm in (sys.modules["research_team.lms"].FLASH, sys.modules["research_team.lms"].PRO):
        lm.close()
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "research_team"]:
        del sys.modules[name]


def conclusion(prompt):
    return {"conclusion": "It depends."} if "views" in prompt.inputs else None


def test_six_experts_are_asked_at_once_and_the_stronger_model_concludes(run, model):
    six = threading.Barrier(6, timeout=PATIENCE_SECONDS)  # passes only if all six are in flight

    def script(prompt):
        if found := conclusion(prompt):
            return found
        six.wait()
        return {"view": f"As {prompt.inputs['perspective']}."}

    model.script = script
    outputs = run("ExpertPanel", question="Should we ship on a Friday?")
    assert len(outputs["views"]) == 6
    assert outputs["views"]["a lawyer"] == "As a lawyer."
    assert (outputs["missing"], outputs["conclusion"]) == ({}, "It depends.")
    assert [prompt.model for prompt in model.prompts] == [FLASH] * 6 + [PRO]


def test_one_of_six_experts_failing_gives_five_views_and_a_described_failure(run, model):
    model.script = lambda prompt: conclusion(prompt) or (400 if prompt.inputs["perspective"] == "a lawyer" else VIEW)
    outputs = run("ExpertPanel", question="Should we ship on a Friday?")
    assert len(outputs["views"]) == 5
    assert outputs["missing"] == {"a lawyer": "model_error: The model's provider did not give an answer."}
    assert "lawyer" not in model.prompts[-1].inputs["views"]


def test_a_panel_with_too_few_views_fails_as_its_experts_did(run, model):
    model.script = lambda prompt: VIEW if prompt.inputs["perspective"] in ("a customer", "a skeptic") else 400
    with pytest.raises(ModelUnavailable):
        run("ExpertPanel", question="Should we ship on a Friday?")


def test_the_searchers_use_their_tool_and_the_tiers_their_models(run, model):
    def script(prompt):
        match prompt.inputs:
            case {"analyses": _}:
                return {"reasoning": "r", "report": "The report."}
            case {"findings": findings}:
                return {"analysis": findings}
            case {"observation_1": _}:
                return {"reasoning": "r", "findings": ["Mind the Fridays."]}
            case {"observation_0": _}:
                return {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}}
            case _:
                search = {"query": "canary Fridays"}
                return {"next_thought": "t", "next_tool_name": "search_library", "next_tool_args": search}

    model.script = script
    assert run("ResearchTeam", question="Should we ship on a Friday?") == {"report": "The report.", "missing": {}}
    assert [prompt.model for prompt in model.prompts] == [FLASH] * 6 * 4 + [PRO]
    seen = [prompt.inputs["observation_0"] for prompt in model.prompts if "observation_0" in prompt.inputs]
    assert len(seen) == 12
    assert all("twice as many rollbacks" in notes and "Canary" in notes for notes in seen)


@pytest.mark.parametrize(
    ("scores", "attempts", "text", "score"),
    [
        ([0.9], 1, "attempt 1", 0.9),
        ([0.3, 0.6, 0.8, 0.9], 3, "attempt 3", 0.8),
        ([0.6, 0.3, 0.5, 0.9], 3, "attempt 1", 0.6),
    ],
    ids=["good at once", "good in the end", "never good"],
)
def test_the_gate_refines_until_good_or_gives_the_best(run, model, scores, attempts, text, score):
    written = []

    def script(prompt):
        if "text" in prompt.inputs:
            return {"score": scores[len(written) - 1], "advice": f"advice {len(written)}"}
        written.append(prompt.inputs["advice"])
        return {"text": f"attempt {len(written)}"}

    model.script = script
    outputs = run("QualityGate", task="Announce the release.")
    assert (outputs["text"], outputs["score"], len(written)) == (text, score, attempts)
    assert written == ["", "advice 1", "advice 2"][:attempts]


def test_a_document_that_cannot_be_read_leaves_the_others_claims(run, model):
    def script(prompt):
        if prompt.inputs["document"].startswith("broken"):
            return 400
        return {"supported_claims": ["s"]} if "claims" in prompt.inputs else {"claims": ["c", "s"]}

    model.script = script
    outputs = run("ParallelPipeline", documents=[f"{kind} {uuid.uuid4()}" for kind in ("good", "broken", "good")])
    assert outputs["claims"] == {"0": ["s"], "2": ["s"]}
    assert outputs["failures"] == {"1": "model_error: The model's provider did not give an answer."}


def test_the_config_for_bedrock_gives_every_program_models_on_bedrock(tmp_path):
    root = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    ours = load_project(root)
    shutil.copy(root / "dspy.config.bedrock.yaml", root / "dspy.config.yaml")
    bedrock = load_project(root).config
    assert all(route(alias.model) and alias.env is None for alias in bedrock.models.registry.values())
    assert bedrock.program_arguments.keys() == ours.functions.keys()
    for program, arguments in bedrock.program_arguments.items():
        cls = getattr(sys.modules[ours.functions[program].module], program)
        _, *parameters = inspect.signature(cls.__init__).parameters
        assert arguments == {name: name.removesuffix("_lm") for name in parameters}
    assert bedrock.lambda_ == ours.config.lambda_
