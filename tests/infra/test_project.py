from pathlib import Path

import dspy
import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.project import load_project
from tests.support import AECHO, ECHO


def test_a_module_in_a_subfolder_is_not_a_program_and_is_reported(make_project, capsys):
    project = make_project({"echo": ECHO})
    (modules,) = project.glob("src/*/modules")
    (modules / "deep").mkdir()
    (modules / "deep" / "other.py").write_text(f"import dspy\n{AECHO}")
    (modules / "deep" / "helper.py").write_text("WORDS = 3\n")
    assert list(load_project(project).functions) == ["Echo"]
    said = capsys.readouterr().err
    assert f"{modules}/deep/other.py: not searched for programs; put them directly into modules/" in said
    assert "helper.py" not in said


def test_loaded_excludes_programs_that_cannot_be_loaded(make_project):
    project = load_project(make_project({"echo": ECHO, "broken": f"import nothing_of_that_name\n{AECHO}"}))
    assert list(project.functions) == ["AEcho", "Echo"]
    assert list(project.loaded().functions) == ["Echo"]
    with pytest.raises(ConfigError, match=r"AEcho: .*nothing_of_that_name"):
        project.require_loaded()


def test_loaded_refuses_a_project_without_any_loadable_program(make_project):
    project = load_project(make_project({"broken": f"import nothing_of_that_name\n{AECHO}"}))
    with pytest.raises(ConfigError, match="nothing_of_that_name"):
        project.loaded()


def test_programs_find_the_projects_files_wherever_the_command_runs(make_project, tmp_path, monkeypatch):
    source = """
    import os
    from pathlib import Path
    NAME = Path("state/name.txt").read_text()
    class Loads(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
            self.load("state/predict.json")
            os.chdir("state")
        def forward(self, question: str):
            return self.predict(question=question)
    """
    project = make_project({"loads": source})
    (project / "state").mkdir()
    (project / "state" / "name.txt").write_text("x")

    class Saves(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

    Saves().save(project / "state" / "predict.json")
    monkeypatch.chdir(tmp_path)
    assert load_project(project.relative_to(tmp_path)).failed == {}
    assert Path.cwd() == tmp_path


def test_a_functions_environment_follows_from_its_settings(make_project):
    settings = {"defaults": {"environment": {"MODE": "a"}}, "programs": {"AEcho": {"http": False, "preconnect": True}}}
    project = load_project(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))
    narrowed = {name: f.environment for name, f in project.functions.items()}
    modules = {name: found.pop("DSPY_LAMBDA_MODULE") for name, found in narrowed.items()}
    assert {name: module.rpartition(".")[2] for name, module in modules.items()} == {"AEcho": "aecho", "Echo": "echo"}
    assert narrowed == {
        "AEcho": {"MODE": "a", "DSPY_LAMBDA_PROGRAM": "AEcho", "DSPY_LAMBDA_PRECONNECT": "true"},
        "Echo": {"MODE": "a", "DSPY_LAMBDA_PROGRAM": "Echo", "DSPY_LAMBDA_SOURCES": "http"},
    }


def test_programs_that_use_their_lm_in_the_constructor_load_without_a_key(make_project, monkeypatch):
    source = """
    LM = dspy.settings.lm.copy(temperature=0.5)
    class Takes(dspy.Module):
        def __init__(self):
            super().__init__()
            self.model = dspy.settings.lm.model
        def forward(self, question: str): ...
    """
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    registry = {name: {"model": f"openai/{name}", "env": "OPENAI_API_KEY"} for name in ("fast", "strong")}
    models = {"default": "fast", "registry": registry}
    project = make_project({"takes": source}, models=models, program_models={"Takes": "strong"})
    assert load_project(project).functions["Takes"].program.instance.model == "openai/strong"


def test_a_folder_beside_src_can_be_imported_as_on_lambda(make_project):
    project = make_project({"order": "from handler_codes.codes import CODES\n" + ECHO})
    (project / "handler_codes").mkdir()
    (project / "handler_codes" / "codes.py").write_text("CODES = [1]\n")
    assert load_project(project).failed == {}


TWO_TIERS = """
class Team(dspy.Module):
    def __init__(self, flash_lm, depth: int):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        self.predict.set_lm(flash_lm)
        self.depth = depth
    def forward(self, question: str):
        return self.predict(question=question)
"""
TIERS = {
    "default": "pro",
    "registry": {alias: {"model": f"openai/{alias}", "env": f"{alias.upper()}_KEY"} for alias in ("flash", "pro", "x")},
}


def test_a_function_gets_the_keys_of_the_aliases_that_its_constructor_takes(make_project):
    arguments = {"program_arguments": {"Team": {"depth": 2}}}
    project = load_project(make_project({"team": TWO_TIERS, "echo": ECHO}, models=TIERS, **arguments))
    assert project.failed == {}
    secrets = {name: sorted(project.secrets(function)) for name, function in project.functions.items()}
    assert secrets == {"Echo": ["PRO_KEY"], "Team": ["FLASH_KEY", "PRO_KEY"]}


def test_arguments_that_nothing_provides_and_those_of_unknown_programs_are_reported(make_project):
    project = load_project(make_project({"team": TWO_TIERS}, models=TIERS))
    assert "add to dspy.config.yaml: program_arguments: {Team: {depth: VALUE}}" in project.failed["Team"]
    with pytest.raises(ConfigError, match=r"program_arguments\.Crew: no such program; the project has: Team"):
        load_project(make_project({"team": TWO_TIERS}, models=TIERS, program_arguments={"Crew": {"depth": 2}}))


def test_a_function_gets_the_keys_of_all_models_that_its_program_may_call(make_project):
    registry = {
        "fast": {"model": "openai/a", "env": "FAST_KEY", "fallback": ["spare"]},
        "spare": {"model": "openai/b", "env": "SPARE_KEY"},
        "pro": {"model": "openai/c", "env": "PRO_KEY"},
        "unused": {"model": "openai/d", "env": "UNUSED_KEY"},
    }
    models = {"default": "fast", "registry": registry}
    loaded = load_project(
        make_project({"echo": ECHO, "aecho": AECHO}, models=models, predictor_models={"Echo": {"predict": "pro"}})
    )
    keys = {name: list(loaded.secrets(function)) for name, function in loaded.functions.items()}
    assert keys == {"Echo": ["FAST_KEY", "PRO_KEY", "SPARE_KEY"], "AEcho": ["FAST_KEY", "SPARE_KEY"]}


@pytest.mark.parametrize("key", ["predictor_models", "program_adapters"])
def test_settings_of_an_unknown_program_are_refused(make_project, key):
    value = {"Ech": "json"} if key == "program_adapters" else {"Ech": {"predict": "fast"}}
    with pytest.raises(ConfigError, match=rf"{key}\.Ech: no such program; the project has: Echo"):
        load_project(make_project({"echo": ECHO}, **{key: value}))
