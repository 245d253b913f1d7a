"""Which models a program calls: configured ones, and those of the LMs that it holds."""

import json

import pytest

from dspy_lambda_infra.cli import main
from tests.support import AECHO, ECHO

TIERS = """
class Tiers:
    def __init__(self):
        self.pro = dspy.LM("openai/gpt-4.1", max_parallel_requests=2000, timeout=120)
        self.again = [self]

_tiers = None

def tiers():
    global _tiers
    _tiers = _tiers or Tiers()
    return _tiers
"""
TEAM = """
from {package} import tiers as shared
from {package}.modules._other import helper

FLASH = dspy.LM("openai/unpriced-model", max_parallel_requests=2000, timeout=120)

class Team(dspy.Module):
    def __init__(self, fast_lm):
        super().__init__()
        self.fast = fast_lm
        self.slow = fast_lm.copy(model="openai/gpt-4.1-mini")
        self.search = dspy.Predict("question -> answer")
        self.search.set_lm(FLASH)
        self.join = dspy.ChainOfThought("question -> answer")
        self.join.set_lm(shared.tiers().pro)

    def forward(self, question: str):
        return self.search(question=question)
"""


@pytest.fixture
def project(make_project):
    root = make_project({"echo": ECHO, "_other": "JUDGE = dspy.LM('bedrock/b')\ndef helper(): ...\n"})
    (package,) = (root / "src").iterdir()
    (package / "tiers.py").write_text("import dspy\n" + TIERS)
    (package / "modules" / "team.py").write_text("import dspy\n" + TEAM.format(package=package.name))
    return root


def test_doctor_lists_aliases_and_the_lms_that_programs_hold(project, capsys):
    assert main(["doctor", "--project", str(project), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {use["names"][0]: use for use in found["models"] if use["program"] == "Team"}
    assert {name: use["model"] for name, use in rows.items()} == {
        "fast": "openai/gpt-4.1-nano",
        "Team.slow": "openai/gpt-4.1-mini",
        "Team.search": "openai/unpriced-model",
        "Team.join.predict": "openai/gpt-4.1",
        "_other.JUDGE": "bedrock/b",
    }
    assert rows["Team.search"]["names"] == ["Team.search", "team.FLASH"]
    assert rows["Team.join.predict"]["names"] == ["Team.join.predict", "tiers._tiers"]
    assert [use["max_parallel_requests"] for use in rows.values()] == [None, None, 2000, 2000, None]
    assert [use["is_priced"] for use in rows.values()][:4] == [True, True, False, True]
    assert [use["needs_litellm"] for use in rows.values()][:4] == [False] * 4
    assert [use["names"] for use in found["models"] if use["program"] == "Echo"] == [["fast"]]


def test_doctor_prints_a_table(project, capsys):
    assert main(["doctor", "--project", str(project)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["program", "name", "model", "engine", "price", "parallel", "requests"]
    (line,) = [line for line in lines if "team.FLASH" in line]
    assert line.split() == ["Team", "Team.search,", "team.FLASH", "openai/unpriced-model", "native", "unknown", "2000"]


def test_a_program_that_cannot_be_loaded_is_reported_after_the_others(make_project, capsys):
    root = make_project({"echo": ECHO, "broken": "import nothing_of_that_name\n" + ECHO.replace("Echo", "Broken")})
    assert main(["doctor", "--project", str(root)]) != 0
    out, err = capsys.readouterr()
    assert "Echo" in out
    assert "Broken: " in err


MODELS = {
    "default": "own",
    "registry": {
        "own": {"model": "bedrock-chat:acme.unknown", "region": "eu-west-1", "fallback": ["spare"]},
        "spare": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY"},
    },
}


@pytest.fixture
def doctor(make_project, capsys):
    project = make_project({"echo": ECHO, "aecho": AECHO}, models=MODELS, program_models={"AEcho": "spare"})

    def run(*options):
        assert main(["doctor", "--project", str(project), *options]) == 0
        return capsys.readouterr().out

    return run


def test_a_bedrock_models_door_region_and_missing_price_are_explained(doctor):
    lines = doctor("--function", "Echo").splitlines()
    own = ["Echo", "own", "bedrock-chat:acme.unknown", "chat", "(eu-west-1)", "unknown"]
    assert [line.split() for line in lines[1:3]] == [own, ["Echo", "spare", "openai/gpt-4.1-nano", "native", "known"]]
    assert lines[4] == "bedrock-chat:acme.unknown: door chat, because named by bedrock-chat:"
    assert lines[5].startswith("price unknown: cost_usd is null")


def test_json_has_the_same(doctor):
    found = json.loads(doctor("--json"))["models"]
    assert [(use["program"], use["names"]) for use in found] == [
        ("AEcho", ["spare"]),
        ("Echo", ["own"]),
        ("Echo", ["spare"]),
    ]
    assert (found[1]["door"], found[1]["region"], found[1]["is_priced"]) == ("chat", "eu-west-1", False)
