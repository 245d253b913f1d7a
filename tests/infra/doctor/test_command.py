import json

import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.doctor import command
from dspy_lambda_infra.doctor.cold_start import Start
from tests.support import ECHO


@pytest.fixture
def small_artifact(tmp_path, monkeypatch):
    """A module instead of a built function, and a `dspy` to compare it with."""
    (tmp_path / "app.py").write_text("import dspy\ndef handler(event, context): pass\n")
    (tmp_path / "dspy.py").write_text("import time\ntime.sleep(0.05)\n")
    monkeypatch.setattr(command, "start_of", lambda *_: Start(tmp_path, "app.handler"))


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_doctor_compares_each_cold_start_with_import_dspy(make_project, small_artifact, capsys, option):
    project = make_project({"echo": ECHO})
    arguments = ["--cold-start", "--project", str(project), "--function", "Echo", "--rounds", "1", *option]
    status = main(["doctor", *arguments])
    out, err = capsys.readouterr()
    if "awslambdaric cannot be installed" in err:
        pytest.skip(f"needs PyPI: {err}")
    assert status == 0
    if not option:
        assert "EchoFunction: ready after " in out
        assert " x import dspy" in out
        return
    found = json.loads(out)
    (function,) = found.pop("functions")
    assert set(found) == {"python", "rounds", "import_dspy_seconds"}
    assert function["function"] == "EchoFunction"
    assert function["ratio"] == pytest.approx(function["ready_seconds"] / found["import_dspy_seconds"])
    assert function["imports_ms"]["dspy"] >= 50
