"""The template metadata that deployments are compared by."""

import json

import pytest

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template.metadata import METADATA, deployed_config, metadata
from tests.support import ECHO

KEYED = {"model": "openai/a", "api_key": "sk-planted", "api_base": "https://user:secret@host:1/v1?key=secret#part"}


@pytest.fixture
def found(make_project):
    def found(**config):
        return metadata(load_project(make_project({"echo": ECHO}, **config)))[METADATA]["Config"]

    return found


def test_metadata_has_models_programs_and_non_default_limits(found):
    registry = {"fast": {"model": "openai/a"}, "strong": {"model": "openai/b", "temperature": 0.5}}
    models = {"default": "fast", "registry": registry}
    config = found(models=models, program_models={"Echo": "strong"}, server={"sync_worker_threads": 7})
    assert config["program_models"] == {"Echo": "strong"}
    assert config["server"] == {"sync_worker_threads": 7}
    assert config["models"]["default"] == "fast"
    assert config["models"]["registry"]["strong"] == {"model": "openai/b", "temperature": 0.5}


def test_metadata_contains_no_key_not_even_from_a_url(found):
    config = found(models={"default": "fast", "registry": {"fast": KEYED}})
    assert config["models"]["registry"]["fast"] == {"model": "openai/a", "api_base": "https://host:1/v1"}
    assert "secret" not in json.dumps(config)


def test_the_deployed_config_is_read_back_from_template_metadata(found):
    assert deployed_config({"Metadata": {METADATA: {"Config": {"a": 1}}}}) == {"a": 1}
    assert deployed_config({"Metadata": {"Other": {}}}) is None
    assert deployed_config({}) is None
