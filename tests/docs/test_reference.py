import re

import pytest
import yaml

from dspy_lambda.api.app import create_app
from tests.conftest import ROOT
from tests.docs.pages import generator
from tests.support import AECHO, sqs

SOURCES = [*(ROOT / "handler").rglob("*.py"), *(ROOT / "infra").rglob("*.py")]
RAISES = "class Raises(dspy.Module):\n    def forward(self, question: str):\n        raise ValueError('no')\n"


@pytest.fixture(scope="module")
def generate():
    return generator()


@pytest.fixture(scope="module")
def meanings(generate):
    return yaml.safe_load(generate.MEANINGS.read_text())


def test_the_reference_matches_the_code(generate):
    pages = generate.pages()
    assert {path.name for path in generate.REFERENCE.iterdir()} == set(pages)
    outdated = [name for name, text in pages.items() if (generate.REFERENCE / name).read_text() != text]
    assert not outdated, "run: make reference"


@pytest.mark.parametrize("part", ["config", "routes", "messages", "metrics"])
def test_meanings_yaml_describes_exactly_what_the_code_has(generate, meanings, part):
    in_code = {
        "config": generate.config_keys,
        "routes": lambda: [path for _, path in generate.routes()],
        "messages": generate.log_messages,
        "metrics": lambda: [name for name, _ in generate.metrics()],
    }[part]()
    assert in_code
    assert set(meanings[part]) == set(in_code)
    assert all(meanings[part].values())


def test_the_reference_lists_every_environment_variable(generate, meanings):
    in_code = {name for path in SOURCES for name in re.findall(r"\bDSPY_LAMBDA_[A-Z_]*[A-Z]\b", path.read_text())}
    listed = {name for name, _, _ in generate.variables(meanings)}
    assert {name for name in listed if name.startswith("DSPY_LAMBDA_")} == in_code
    text = "".join(path.read_text() for path in SOURCES)
    assert not [name for name in listed if name not in text and name != "POWERTOOLS_LOG_LEVEL"]  # Powertools reads it


def test_the_referenced_routes_match_the_application(generate, serve):
    served = {
        (method, re.sub(r"^/(Answer|Summarise|Triage|Perspectives)$", "/{Program}", route.path))
        for route in create_app(serve.environment).routes
        for method in route.methods - {"HEAD"}
    }
    assert set(generate.routes()) == served - {("GET", "/docs/oauth2-redirect"), ("GET", "/redoc")}


def test_the_reference_lists_exactly_the_log_record_fields(meanings, make_project, make_serve, records, models):
    project = make_project({"aecho": AECHO, "raises": RAISES})
    serve = make_serve(project, DSPY_LAMBDA_EXCEPTION_TEXTS="log")
    serve.post("/AEcho", {"question": "why?"})
    serve.post("/AEcho", {})
    serve(sqs({"program": "Raises", "inputs": {"question": "why?"}}))
    calls = records().calls
    assert [call["outcome"] for call in calls] == ["success", "invalid_input", "program_error"]
    seen = {name for call in calls for name in call}
    assert not seen - set(meanings["record"])
    handler = "".join(path.read_text() for path in (ROOT / "handler").rglob("*.py"))
    of_powertools = {"level", "message", "timestamp", "service", "xray_trace_id"}
    assert not [name for name in meanings["record"] if name not in of_powertools and f'"{name}"' not in handler]


def test_the_reference_lists_every_command_and_option(generate):
    page = (generate.REFERENCE / "cli.md").read_text()
    known = generate.command_line()
    assert {"template", "build", "local", "serve", "deploy", "limits", "doctor", "invoke"} <= {c.name for c in known}
    assert not [c.name for c in known if f"## dspy-lambda {c.name}".strip() not in page]
    flags = [flag for command in known for option in command.options for flag in option.flags]
    assert {"--project", "--inputs", "--dry-run"} <= set(flags)
    assert not [flag for flag in flags if flag not in page]
    assert not [(c.name, o.flags) for c in known for o in c.options if not o.help and not o.choices]
