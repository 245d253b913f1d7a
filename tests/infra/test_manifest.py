"""What the catalogue function would expose of a project's keys."""

import json

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.manifest import manifest
from dspy_lambda_infra.project import load_project

KEY = "planted-0123456789"


@pytest.fixture
def load(make_project, monkeypatch):
    """Load a project with one program, whose `forward` has this parameter, and with a key in its `.env`."""

    def load(parameter, **config):
        module = f"""
            import os
            from typing import Literal

            class Keyed(dspy.Module):
                def forward(self, q: str, {parameter}): ...
        """
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # it would take precedence over .env
        project = make_project({"keyed": module}, **config)
        (project / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOTHER={KEY[::-1]}\n")
        return load_project(project)

    return load


def test_the_manifest_omits_defaults_that_hold_a_variables_value(load):
    project = load('api_key: str = os.environ["OPENAI_API_KEY"], tone: str = "kind"')
    text = json.dumps(manifest(project))
    assert KEY not in text
    assert '"default": "kind"' in text


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OTHER"])
def test_a_key_elsewhere_in_the_manifest_is_refused_without_showing_it(load, name):
    project = load(f'choice: Literal["a", os.environ["{name}"]]', **{"lambda": {"defaults": {"secrets": ["OTHER"]}}})
    with pytest.raises(ConfigError) as error:
        manifest(project)
    assert f"KeyedInputs.properties.choice.enum: /openapi.json would expose the value of {name}" in str(error.value)
    assert KEY not in str(error.value)
    assert KEY[::-1] not in str(error.value)


def test_values_that_are_not_keys_may_be_in_the_manifest(load):
    project = load('choice: Literal["a", os.environ["OTHER"]]')
    assert KEY[::-1] in json.dumps(manifest(project))


def test_a_variable_named_like_a_key_counts_as_one(load, monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", KEY[::-1])
    with pytest.raises(ConfigError, match="the value of MAIL_PASSWORD"):
        manifest(load('choice: Literal["a", os.environ["OTHER"]]'))
