import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.cli import main
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.stack_size import LIMITS, check_size, measure
from dspy_lambda_infra.template import build
from tests.conftest import QUICKSTART
from tests.support import ECHO


@pytest.fixture
def make(make_project):
    """Create a project with that many programs, each with a queue."""

    def of(count, alarms=True):
        modules = {"echo": "\n".join(ECHO.replace("class Echo", f"class Echo{n:03}") for n in range(count))}
        defaults = {"sqs": {}}
        return make_project(modules, **{"lambda": {"alarms": alarms, "defaults": defaults}})

    return of


def check(root):
    check_size(load_project(root), "")


def test_the_stack_size_counts_the_translated_template():
    template = build(load_project(QUICKSTART), QUICKSTART)
    size = measure(template)
    assert size["resources"] > len(template["Resources"])  # SAM adds permissions, mappings and the API's parts
    assert (size["outputs"], size["parameters"]) == (len(template["Outputs"]), len(template["Parameters"]))


def test_29_programs_with_queues_and_alarms_fit_and_one_more_does_not(make):
    check(make(29))
    with pytest.raises(
        ConfigError, match=r"30 programs result in 506 resources .*of their names, 29 fit into a stack, 30"
    ):
        check(make(30))


def test_a_templates_size_is_that_of_its_longer_form(make):
    project = load_project(make(1))
    check_size(project, "x" * LIMITS["bytes"])
    with pytest.raises(ConfigError, match="1,000,001 bytes"):
        check_size(project, "x" * (LIMITS["bytes"] + 1))


def test_more_programs_fit_without_alarms_and_no_error_suggests_disabling_them(make):
    with pytest.raises(ConfigError, match="58 fit into a stack; split the project"):
        check(make(60, alarms=False))


def test_template_extra_resources_count_toward_the_stack_size(make):
    root = make(29)
    topics = "".join(f"  Topic{n}: {{Type: AWS::SNS::Topic}}\n" for n in range(20))
    (root / "template.extra.yaml").write_text(f"Resources:\n{topics}  Echo000Role: {{Properties: {{Path: /a/}}}}\n")
    with pytest.raises(ConfigError, match=r"28 fit into a stack, 29 with lambda\.alarms: false"):
        check(root)


@pytest.mark.parametrize(
    ("what", "extra"),
    [
        ("outputs", "Outputs:\n" + "".join(f"  Out{n}: {{Value: a}}\n" for n in range(200))),
        ("parameters", "Parameters:\n" + "".join(f"  P{n}: {{Type: String, Default: a}}\n" for n in range(200))),
        ("bytes", f"Metadata: {{Text: {'x' * 1_000_000}}}\n"),
    ],
)
def test_exceeding_any_cloudformation_limit_is_reported(make, what, extra):
    root = make(1)
    (root / "template.extra.yaml").write_text(extra)
    with pytest.raises(ConfigError, match=rf"result in [0-9,]+ {what} \(CloudFormation allows {LIMITS[what]:,}\)"):
        check(root)


def test_template_refuses_an_oversized_stack_and_writes_nothing(make, capsys):
    root = make(30)
    assert main(["template", "--project", str(root), "--output", str(root / "template.yaml")]) == 2
    assert "29 fit into a stack" in capsys.readouterr().err
    assert not (root / "template.yaml").exists()
