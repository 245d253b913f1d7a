from dspy_lambda_infra.deploy.configuration import configuration_changes
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import render
from dspy_lambda_infra.template.metadata import deployed_config
from tests.support import ECHO

FAST = {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY"}


def config(make_project, model=FAST, **settings):
    """Return the config in a deployed stack's template."""
    project = load_project(make_project({"echo": ECHO}, models={"default": "a", "registry": {"a": model}}, **settings))
    return deployed_config(translate(render(project, project.root), {}))


def test_an_unchanged_config_shows_no_changes(make_project):
    assert configuration_changes(config(make_project), config(make_project)) == []


def test_a_changed_model_is_named_and_restarts_every_function(make_project):
    after = config(make_project, {**FAST, "model": "openai/gpt-4.1-mini", "temperature": 0})
    assert configuration_changes(config(make_project), after) == [
        "~ models.registry.a.model: openai/gpt-4.1-nano -> openai/gpt-4.1-mini",
        "+ models.registry.a.temperature: 0.0",
        "restarts the environments of every function",
    ]


def test_a_removed_limit_is_shown_as_a_change(make_project):
    lines = configuration_changes(config(make_project, server={"sync_worker_threads": 5}), config(make_project))
    assert lines[0] == "- server.sync_worker_threads: was 5"


def test_the_template_metadata_contains_no_key(make_project):
    model = {
        "model": "openai/x",
        "api_key": "sk-planted",
        "api_base": "http://me:sk-planted@127.0.0.1:1/v1?k=sk-planted",
    }
    found = config(make_project, model)
    assert found["models"]["registry"]["a"]["api_base"] == "http://127.0.0.1:1/v1"
    assert "planted" not in str(found)
    assert "api_key" not in str(found)


def test_a_deployed_template_without_metadata_shows_no_config_changes():
    assert deployed_config({"Resources": {}}) is None
