import pytest

from handler.errors import ConfigError
from tests.support import AECHO, ECHO

REGISTRY = {
    "fast": {"model": "openai/gpt-4.1-nano", "env": "FAST_KEY", "max_tokens": 50, "temperature": 0.5},
    "strong": {"model": "openai/gpt-4.1-mini", "env": "STRONG_KEY"},
    "own": {"model": "openai/own", "api_key": "literal", "api_base": "http://127.0.0.1:1/v1"},
}
MODELS = {"default": "fast", "registry": REGISTRY}


def test_only_the_models_in_use_are_built_and_need_their_key(make_project, make_serve):
    project = make_project({"echo": ECHO, "aecho": AECHO}, models=MODELS, program_models={"AEcho": "strong"})
    serve = make_serve(project, DSPY_LAMBDA_PROGRAM="Echo", FAST_KEY="k")
    (lm,) = serve.environment.dispatcher.models.values()
    assert (lm.model, lm.kwargs["max_tokens"], lm.kwargs["temperature"]) == ("openai/gpt-4.1-nano", 50, 0.5)
    with pytest.raises(ConfigError, match=r"models\.registry\.strong\.env: .* STRONG_KEY is not set"):
        make_serve(project, FAST_KEY="k")


def test_the_timeout_is_the_functions_and_a_literal_key_serves_a_server_of_ones_own(make_project, make_serve):
    settings = {"programs": {"Echo": {"timeout_seconds": 7}}}
    project = make_project({"echo": ECHO}, models={**MODELS, "default": "own"}, **{"lambda": settings})
    serve = make_serve(project, DSPY_LAMBDA_API_BASE="")
    (lm,) = serve.environment.dispatcher.models.values()
    assert (lm.kwargs["timeout"], lm.kwargs["api_key"]) == (7, "literal")
    assert lm.kwargs["api_base"] == "http://127.0.0.1:1/v1"


def test_settings_that_dspy_refuses_are_a_config_error_with_the_key(make_project, make_serve):
    registry = {"fast": {"model": "openai/gpt-5-mini", "temperature": 0.2}}
    project = make_project({"echo": ECHO}, models={"default": "fast", "registry": registry})
    with pytest.raises(ConfigError, match=r"models\.registry\.fast: .*temperature"):
        make_serve(project)
