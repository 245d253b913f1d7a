from dspy_lambda_infra.cli import main
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from tests.support import ECHO


def test_sam_files_are_written_without_overwriting_the_users_own(make_project, capsys):
    project = make_project({"echo": ECHO})
    command = ["template", "--project", str(project), "--output", str(project / "template.yaml")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"wrote {project / 'Makefile'}" in said
    assert f"wrote {project / 'samconfig.toml'}" in said
    assert "build-%:" in (project / "Makefile").read_text()
    assert "build_in_source = true" in (project / "samconfig.toml").read_text()
    (project / "Makefile").write_text("all:\n")
    (project / "samconfig.toml").write_text("version = 0.1\n")
    assert main(command) == 0
    assert (project / "Makefile").read_text() == "all:\n"
    told = capsys.readouterr().err
    assert "has no rule 'build-%:'" in told
    assert "set build_in_source = true" in told


def test_a_hand_written_template_is_not_overwritten(make_project, capsys):
    project = make_project({"echo": ECHO})
    path = project / "template.yaml"
    path.write_text("Resources: {}\n")
    command = ["template", "--project", str(project), "--output", str(path)]
    assert main(command) == 2
    assert f"{path}: was not written by dspy-lambda" in capsys.readouterr().err
    assert path.read_text() == "Resources: {}\n"
    assert not (project / "Makefile").exists()
    path.write_text(render(load_project(project), project))
    assert main(command) == 0
