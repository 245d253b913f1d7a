import json

import pytest

from dspy_lambda_infra.cli import main
from tests.support import AECHO, ECHO

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


def test_doctor_shows_each_models_door_region_price_and_engine(doctor):
    assert doctor("--function", "Echo").splitlines() == [
        "EchoFunction: models",
        "  models.registry.own: bedrock-chat:acme.unknown; door chat: named by bedrock-chat:; in eu-west-1; "
        "PRICE UNKNOWN: cost_usd is null; set price or daily_tokens; without LiteLLM",
        "  models.registry.spare: openai/gpt-4.1-nano; price known; without LiteLLM",
    ]


def test_doctor_shows_all_functions_as_json(doctor):
    found = {one["function"]: one["models"] for one in json.loads(doctor("--json"))["functions"]}
    assert list(found) == ["AEchoFunction", "EchoFunction"]
    assert found["EchoFunction"][0] == {
        "place": "models.registry.own",
        "model": "bedrock-chat:acme.unknown",
        "door": "chat",
        "reason": "named by bedrock-chat:",
        "region": "eu-west-1",
        "has_price": False,
        "needs_litellm": False,
    }
