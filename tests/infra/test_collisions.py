import importlib
import sys

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.collisions import check_names
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


def put(project, path, text=""):
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text(text)


@pytest.mark.parametrize(
    ("path", "named", "owner"),
    [
        ("src/yaml/modules/echo.py", "src/yaml", "PyYAML"),
        ("src/fastapi/__init__.py", "src/fastapi", "fastapi"),
        ("src/boto3/tools.py", "src/boto3", "boto3"),
        ("src/statistics/modules/echo.py", "src/statistics", "Python itself"),
        ("src/logging.py", "src/logging.py", "Python itself"),
        ("botocore/__init__.py", "botocore", "botocore"),
        ("types.py", "types.py", "Python itself"),
    ],
)
def test_a_module_named_like_one_that_functions_import_is_refused_with_its_owner(make_project, path, named, owner):
    project = make_project({"echo": ECHO})
    put(project, path, ECHO)
    with pytest.raises(ConfigError) as raised:
        load_project(project)
    name, kind = named.rpartition("/")[2].removesuffix(".py"), "file" if named.endswith(".py") else "folder"
    expected = f"{project / named}: {owner} has a module `{name}`, and one would hide the other; rename the {kind}"
    assert str(raised.value) == expected


def test_the_collision_message_names_every_colliding_module(make_project):
    project = make_project({"echo": ECHO})
    put(project, "src/yaml/__init__.py")
    put(project, "json.py")
    with pytest.raises(ConfigError, match=r"src/yaml: (?s:.*)json\.py: "):
        load_project(project)


def test_common_folder_names_do_not_collide(make_project):
    project = make_project({"echo": ECHO})
    for path in (
        *("handler/__init__.py", "infra/__init__.py", "infra/app.py", "tests/__init__.py", "test/__init__.py"),
        *("src/handler/__init__.py", "src/infra/__init__.py", "src/utils/__init__.py", "src/tests/__init__.py"),
        *("yaml/notes.txt", "json/data.json", "boto3/script.py", "src/email/template.txt"),
    ):
        put(project, path)
    assert list(load_project(project).functions) == ["Echo"]


def test_names_of_unneeded_installed_distributions_do_not_collide(make_project, tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    put(installed, "unneeded/__init__.py")
    put(installed, "unneeded-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: unneeded\nVersion: 1.0\n")
    put(installed, "unneeded-1.0.dist-info/top_level.txt", "unneeded\n")
    monkeypatch.syspath_prepend(installed)
    project = make_project({"echo": ECHO})
    put(project, "src/unneeded/__init__.py")
    check_names(project)
    put(project, "requirements.txt", "unneeded\n")
    with pytest.raises(ConfigError, match="unneeded has a module `unneeded`"):
        check_names(project)


def test_a_project_that_is_installed_from_its_own_folder_does_not_collide_with_itself(make_project, monkeypatch):
    project = make_project({"echo": ECHO})
    monkeypatch.syspath_prepend(project / "src")
    importlib.invalidate_caches()
    assert list(load_project(project).functions) == ["Echo"]
    assert project.name in sys.modules
