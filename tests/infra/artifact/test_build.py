"""Artifacts from empty distributions, which are quick to build."""

import sys
from pathlib import Path

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact import build as build_module
from dspy_lambda_infra.artifact.files import TIME
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.project import CATALOGUE
from tests.infra.artifact.conftest import HERE, contents, top
from tests.support import AECHO, ECHO


def test_an_artifact_contains_the_handler_the_project_and_its_distributions(make_project, quick_build):
    project = make_project({"echo": ECHO})
    built = quick_build(project)
    assert {"dspy_lambda", "src", "dspy.config.yaml", "dspy", "fastapi", "mangum", "pyyaml"} < top(built.folder)
    assert not {"dspy_lambda_infra", "litellm", "openai", "tokenizers", "tests"} & top(built.folder)
    compiled = f"src/{project.name}/modules/__pycache__/echo.{sys.implementation.cache_tag}.pyc"
    assert compiled in contents(built.folder)


def test_each_artifact_contains_only_what_its_function_needs(make_project, quick_build, stand_ins):
    settings = {"programs": {"AEcho": {"http": False}}}
    project = make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings})
    found = {name: top(quick_build(project, name, project / name).folder) for name in ("Echo", "AEcho")}
    assert found["Echo"] - found["AEcho"] == {"fastapi", "mangum"}
    catalogue = quick_build(project, CATALOGUE, project / "catalogue").folder
    assert top(catalogue) == {"dspy_lambda", "catalogue.json", "fastapi", "mangum"}


def test_an_artifact_contains_the_projects_own_requirements(make_project, quick_build, stand_ins):
    stand_ins.add("fast", requires=["quick ; extra == 'extra'"], extras=["extra"])
    stand_ins.add("quick")
    project = make_project({"echo": ECHO})
    (project / "requirements.txt").write_text("fast[extra]\nabsent ; sys_platform == 'win32'\n")
    stand_ins.add("absent")
    found = top(quick_build(project).folder)
    assert {"fast", "quick"} < found
    assert "absent" not in found


def test_litellm_is_included_and_reported_if_a_model_needs_it(make_project, quick_build):
    registry = {"fast": {"model": "openai/a"}, "strong": {"model": "cohere/b"}}
    models = {"default": "fast", "registry": registry}
    project = make_project({"echo": ECHO, "aecho": AECHO}, models=models, program_models={"AEcho": "strong"})
    said = []
    assert {"litellm", "tokenizers", "openai"} & top(quick_build(project, "Echo", said=said).folder) == set()
    assert said == []
    assert {"litellm", "tokenizers"} < top(quick_build(project, "AEcho", said=said).folder)
    (line,) = said
    assert "AEcho needs LiteLLM, about 200 MB and 3 s" in line
    assert "models.registry.strong: cohere/b" in line


def test_a_build_without_bytecode_warns(make_project, quick_build, monkeypatch):
    monkeypatch.setattr(Target, "interpreter", lambda self: None)
    said = []
    built = quick_build(make_project({"echo": ECHO}), said=said)
    assert f"no Python {HERE.python} on this machine" in said[0]
    assert not [path for path in contents(built.folder) if path.endswith(".pyc")]


def test_artifact_files_keep_executable_permission_and_share_one_timestamp(make_project, quick_build):
    project = make_project({"echo": ECHO})
    (project / "tool").write_text("#!/bin/sh\n")
    (project / "tool").chmod(0o700)
    (project / "data.txt").write_text("data")
    (project / "data.txt").chmod(0o600)
    folder = quick_build(project).folder
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("tool", "data.txt", "src")}
    assert modes == {"tool": 0o755, "data.txt": 0o644, "src": 0o755}
    assert {path.stat().st_mtime for path in [folder, *folder.rglob("*")]} == {TIME}


def test_an_image_context_has_the_same_artifact_and_a_dockerfile(make_project, quick_build):
    built = quick_build(make_project({"echo": ECHO}, **{"lambda": {"package_type": "Image"}}))
    assert {path.name for path in built.folder.iterdir()} == {"Dockerfile", "task"}
    assert {"dspy_lambda", "src", "dspy"} < top(built.folder / "task")


def test_a_build_replaces_an_older_artifact(make_project, quick_build):
    for kind in ("Zip", "Image"):
        project = make_project({"echo": ECHO}, **{"lambda": {"package_type": kind}})
        output = project / "out"
        (project / "old.txt").write_text("old")
        quick_build(project, output=output)
        (project / "old.txt").unlink()
        (project / "new.txt").write_text("new")
        quick_build(project, output=output)
        names = {Path(path).name for path in contents(output)}
        assert "new.txt" in names
        assert "old.txt" not in names
        assert not list(project.glob(".out.*"))


def test_a_build_accepts_any_empty_output_folder(make_project, quick_build, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    quick_build(make_project({"echo": ECHO}), output=Path())
    assert {"dspy_lambda", "src"} < top(tmp_path / "empty")


@pytest.mark.parametrize("name", ["notes.txt", "dspy_lambda/__init__.py", "Dockerfile", "task/dspy_lambda/__init__.py"])
def test_a_build_does_not_overwrite_a_folder_that_is_not_an_artifact(make_project, quick_build, tmp_path, name):
    output = tmp_path / "mine"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and not an artifact; choose another --output"):
        quick_build(make_project({"echo": ECHO}), output=output)
    assert contents(output) == {name: b"mine"}


@pytest.mark.parametrize("output", ["file", "file/artifact"])
def test_a_file_at_the_output_path_is_an_error(make_project, quick_build, tmp_path, output):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="choose another --output"):
        quick_build(make_project({"echo": ECHO}), output=tmp_path / output)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_oversized_artifact_error_lists_large_parts_and_suggests_an_image(make_project, quick_build, monkeypatch):
    monkeypatch.setattr(build_module, "UNZIPPED_LIMIT", 100_000)
    with pytest.raises(ConfigError) as raised:
        quick_build(make_project({"echo": ECHO}))
    first, *table, last = str(raised.value).splitlines()
    assert first.startswith("Echo: the artifact is ")
    assert first.endswith("Lambda's limit is 100,000.")
    assert table[0].split()[0] == "dspy_lambda"
    assert any(line.split()[0] == "unzipped" for line in table)
    assert "lambda.package_type: Image" in last


@pytest.mark.parametrize("there", [False, True], ids=["no artifact before", "an older artifact"])
def test_a_failed_build_leaves_no_files(make_project, quick_build, tmp_path, monkeypatch, there):
    project, output = make_project({"echo": ECHO}), tmp_path / "outputs" / "artifact"
    if there:
        quick_build(project, output=output)
    before = contents(tmp_path / "outputs")
    monkeypatch.setattr(build_module, "UNZIPPED_LIMIT", 100)
    with pytest.raises(ConfigError):
        quick_build(project, output=output)
    assert contents(tmp_path / "outputs") == before
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == (["artifact"] if there else [])


@pytest.mark.parametrize("ignored", ["dspy.config.yaml", "src/", "*.py", "echo.py"])
def test_ignoring_a_file_that_the_function_needs_is_an_error(make_project, quick_build, ignored):
    project = make_project({"echo": ECHO})
    (project / ".gitignore").write_text(ignored)
    with pytest.raises(ConfigError, match=r"(dspy\.config\.yaml|echo\.py): a function needs this file, but"):
        quick_build(project)


@pytest.mark.parametrize("name", ["echo_test", "secrets"])
def test_a_program_module_with_an_excluded_name_is_an_error(make_project, quick_build, name):
    project = make_project({"echo": f"from . import {name}\n{ECHO}", name: ""})
    with pytest.raises(ConfigError, match=rf"{name}\.py: a function needs this file, but .* rename it"):
        quick_build(project)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("fast/data.txt", r"fast/data\.txt: fast has a file of the same name; rename this one"),
        ("fast/__init__.py", r"fast/__init__\.py: fast has a file of the same name; rename this one"),
        ("slow/__init__.py", r"slow: fast has a module `slow`, and one would hide the other; rename the folder"),
        ("src/fast.py", r"src/fast\.py: fast has a module `fast`, and one would hide the other; rename the file"),
        ("src/slow/tools.py", r"src/slow: fast has a module `slow`, and one would hide the other; rename the folder"),
    ],
)
def test_a_collision_with_a_distribution_in_the_artifact_names_the_distribution(
    make_project, quick_build, stand_ins, path, says
):
    stand_ins.add("fast", files={"fast/data.txt": "data", "slow.py": "", "notes/text.txt": "data"})
    project = make_project({"echo": ECHO})
    (project / "requirements.txt").write_text("fast")
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("")
    with pytest.raises(ConfigError, match=says):
        quick_build(project)


def test_a_projects_own_folders_coexist_with_those_of_distributions(make_project, quick_build, stand_ins):
    stand_ins.add("fast", files={"notes/text.txt": "data"})
    project = make_project({"echo": ECHO})
    (project / "requirements.txt").write_text("fast")
    own = {"fast/mine.txt", "src/notes/tools.py", "handler/app.py", "infra/__init__.py", "src/fast.pyi"}
    for path in own:
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text("")
    assert own < set(contents(quick_build(project).folder))


def test_importing_an_excluded_module_within_a_call_fails_the_build_with_its_name(make_project, quick_build):
    source = ECHO.replace("        return", "        from logs import cases\n        return")
    project = make_project({"echo": source})
    (project / "src" / "logs").mkdir()
    (project / "src" / "logs" / "cases.py").write_text("")
    with pytest.raises(ConfigError, match=r"echo\.py:9: imports logs, .*/src/logs is left out.*; rename it"):
        quick_build(project)
