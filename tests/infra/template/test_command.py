"""`dspy-lambda template`."""

import json

import pytest

from dspy_lambda_infra.cli import main
from tests.conftest import QUICKSTART, ROOT
from tests.support import AECHO, ECHO


@pytest.mark.parametrize(
    ("config", "modules", "says"),
    [
        ({"lambda": {"api": {"kind": "http", "auth": "jwt"}}}, {"echo": ECHO}, "requires issuer"),
        ({"lambda": {"api": {"auth": "jwt"}}}, {"echo": ECHO}, "requires user_pool_arn"),
        ({"lambda": {"api": {"kind": "http", "auth": "api_key"}}}, {"echo": ECHO}, "requires kind: rest"),
        ({"lambda": {"programs": {"Nope": {}}}}, {"echo": ECHO}, "lambda.programs.Nope: no such program"),
        (
            {"lambda": {"defaults": {"environment": {"AWS_REGION": "x"}}}},
            {"echo": ECHO},
            "AWS_REGION is reserved by Lambda",
        ),
        (
            {"lambda": {"defaults": {"environment": {"POWERTOOLS_SERVICE_NAME": "x"}}}},
            {"echo": ECHO},
            "POWERTOOLS_SERVICE_NAME names the metrics that the alarms read",
        ),
        (
            {"lambda": {"kms_key_arn": "arn:aws:kms:us-east-1:123456789012:alias/mine"}},
            {"echo": ECHO},
            "lambda.kms_key_arn: must be a key ARN",
        ),
        ({"program_models": {"Nope": "fast"}}, {"echo": ECHO}, "program_models.Nope: no such program"),
        ({}, {"a": ECHO, "b": ECHO.replace("Echo", "Ec_ho")}, "share the logical id EchoFunction"),
        ({}, {"a": ECHO.replace("Echo", "Catalogue")}, "CatalogueFunction"),
        ({"lambda": {"defaults": {"sqs": {}}}}, {"a": ECHO.replace("Echo", "OnFailure")}, "OnFailureQueue"),
        ({}, {"broken": "import nothing_of_that_name\n" + AECHO}, "AEcho"),
        ({"lambda": {"defaults": {"sqs": {"maximum_concurrency": 20}}}}, {"echo": ECHO}, "raise reserved_concurrency"),
    ],
)
def test_an_invalid_project_exits_with_2_and_writes_no_template(make_project, capsys, config, modules, says):
    project = make_project(modules, **config)
    assert main(["template", "--project", str(project), "--output", str(project / "template.yaml")]) == 2
    assert says in capsys.readouterr().err
    assert not {"template.yaml", "Makefile", "samconfig.toml"} & {path.name for path in project.iterdir()}


def test_template_to_stdout_prints_the_cost_to_stderr(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["template", "--project", str(QUICKSTART), "--output", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (ROOT / "template.yaml").read_text()
    assert "deploy --dry-run shows what calls may cost" in captured.err


def test_a_template_as_json_reports_what_was_written(make_project, capsys):
    project = make_project({"echo": ECHO})
    command = ["template", "--project", str(project), "--json", "--output"]
    assert main([*command, str(project / "template.yaml")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["template"] == str(project / "template.yaml")
    assert found["functions"] == ["EchoFunction", "CatalogueFunction"]
    assert found["idle_usd_per_month"] > 0
    assert main([*command, "-"]) == 2
    out, err = capsys.readouterr()
    assert (out, "--json and --output - both write to standard output" in err) == ("", True)
