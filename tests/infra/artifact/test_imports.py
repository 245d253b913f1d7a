from pathlib import Path

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.imports import missing_imports
from tests.support import AECHO, ECHO

FILES = {
    "src/app/__init__.py": "",
    "src/app/modules/__init__.py": "",
    "src/app/helpers.py": "import deep.er",
    "src/app/data/words.txt": "",
    "src/app/template.py": "{{ no Python }}",
    "src/native.cpython-313-x86_64-linux-gnu.so": "",
    "deep/er.py": "import gone_below",
    "top.py": "",
    "fast/__init__.py": "",
    "shared/one/__init__.py": "",
    "single.py": "",
}
PROJECT = [Path(name) for name in FILES if not name.startswith(("fast", "shared", "single"))]


@pytest.fixture
def missing(tmp_path):
    """Return the missing imports of a program, given its source."""

    def names(text, module="app.modules.echo"):
        files = {**FILES, "src/app/modules/echo.py": text}
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        found = missing_imports(tmp_path, [*PROJECT, Path("src/app/modules/echo.py")], module)
        return [(f"{m.file.name}:{m.line}", m.name) for m in found]

    return names


@pytest.mark.parametrize(
    "text",
    [
        "import os, json, xml.etree.ElementTree",
        "import boto3, botocore.config",
        "import fast, fast.made.as_it_runs",
        "from fast import anything",
        "import shared.one, single, native, top",
        "from app import data, modules",
        "from . import nothing_but_a_name",
        "from .. import data",
        "def forward(self):\n    from app import template",
        "import src.app.modules",
        "try:\n    import gone\nexcept ImportError:\n    import gone_too",
        "try:\n    import gone\nexcept (KeyError, ModuleNotFoundError):\n    pass",
        "try:\n    import gone\nexcept:\n    pass",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import gone",
        "import typing\nif typing.TYPE_CHECKING:\n    import gone",
        "if __name__ == '__main__':\n    import gone",
        "import sys\nif sys.platform == 'win32':\n    import gone",
        "import sys\nif sys.version_info < (3, 11):\n    import gone\nelse:\n    import gone_too",
    ],
)
def test_present_and_optional_imports_are_not_missing(missing, text):
    assert missing(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os\nimport gone.away", [("echo.py:2", "gone.away")]),
        ("from gone import away", [("echo.py:1", "gone")]),
        ("def forward(self):\n    import gone", [("echo.py:2", "gone")]),
        ("import shared.two", [("echo.py:1", "shared.two")]),
        ("import app.nowhere", [("echo.py:1", "app.nowhere")]),
        ("from .nowhere import x", [("echo.py:1", "app.modules.nowhere")]),
        ("from ..nowhere import x", [("echo.py:1", "app.nowhere")]),
        ("from .. import helpers", [("er.py:1", "gone_below")]),
        ("from app.helpers import x", [("er.py:1", "gone_below")]),
        ("try:\n    import gone\nexcept KeyError:\n    pass", [("echo.py:2", "gone")]),
        ("try:\n    pass\nexcept ImportError:\n    pass\nelse:\n    import gone", [("echo.py:6", "gone")]),
        ("if True:\n    import gone", [("echo.py:2", "gone")]),
    ],
)
def test_missing_imports_are_reported_with_file_and_line(missing, text, found):
    assert missing(text) == found


def test_a_missing_import_fails_only_the_build_of_its_program(make_project, quick_build):
    project = make_project({"echo": ECHO, "aecho": f"import editables\n{AECHO}"})
    quick_build(project, "Echo")
    with pytest.raises(ConfigError) as raised:
        quick_build(project, "AEcho", project / "out")
    assert "aecho.py:2: imports editables, which the artifact lacks: add its distribution" in str(raised.value)
    assert not (project / "out").exists()


def test_importing_what_artifacts_never_contain_is_explained(make_project, quick_build):
    project = make_project({"echo": f"import dspy_lambda_infra\n{ECHO}"})
    with pytest.raises(ConfigError, match="imports dspy_lambda_infra, which is never part of an artifact"):
        quick_build(project)


def test_a_missing_import_is_only_a_warning_if_a_layer_may_provide_it(make_project, quick_build):
    layer = "arn:aws:lambda:us-east-1:123456789012:layer:mine:1"
    project = make_project({"echo": f"import editables\n{ECHO}"}, **{"lambda": {"layers": [layer]}})
    said = []
    quick_build(project, said=said)
    assert any("imports editables" in line and "lambda.layers" in line for line in said)
