import pytest

from dspy_lambda_infra.artifact.litellm import why_litellm
from dspy_lambda_infra.models import function_models, unpriced
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


@pytest.fixture
def models_of(make_project):
    """Return the models of a project's only program, given its registry; the first alias is its own."""

    def load(registry, source=ECHO):
        models = {"default": next(iter(registry)), "registry": registry}
        project = load_project(make_project({"echo": source}, models=models))
        return project, project.functions["Echo"]

    return load


def test_a_functions_models_are_those_of_its_aliases_and_those_that_its_program_holds(models_of):
    held = ECHO.replace(
        "super().__init__()",
        "super().__init__()\n"
        '        self.judges = [dspy.LM("bedrock-chat:acme.judge"), dspy.LM("openai/gpt-4.1-nano")]\n'
        '        self.embed = dspy.Embedder("bedrock/amazon.titan-embed-text-v2:0")',
    )
    registry = {
        "own": {"model": "bedrock/amazon.nova-lite-v1:0", "fallback": ["spare"]},
        "unused": {"model": "openai/gpt-4.1"},
        "spare": {"model": "openai/gpt-4.1-nano"},
    }
    found = function_models(*models_of(registry, held))
    assert [(model.place, model.name, model.route and model.route.door) for model in found] == [
        ("models.registry.own", "bedrock/converse/amazon.nova-lite-v1:0", "converse"),
        ("models.registry.spare", "openai/gpt-4.1-nano", None),
        ("Echo.judges", "bedrock-chat:acme.judge", "chat"),
        ("Echo.judges", "openai/gpt-4.1-nano", None),
        ("Echo.embed", "bedrock/amazon.titan-embed-text-v2:0", "converse"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "bedrock/amazon.nova-lite-v1:0"}, "Converse serves every text model"),
        ({"model": "bedrock/openai.gpt-oss-120b-1:0"}, "this family is served by the OpenAI-compatible door"),
        (
            {"model": "bedrock/openai.gpt-oss-120b-1:0", "guardrail": {"id": "abc", "version": 1}},
            "only Converse applies guardrails",
        ),
        ({"model": "bedrock/openai.gpt-oss-120b-1:0", "door": "converse"}, "named by door: in the config"),
        ({"model": "bedrock-chat:openai.gpt-oss-120b-1:0"}, "named by bedrock-chat:"),
        ({"model": "openai/gpt-4.1-nano"}, ""),
    ],
)
def test_the_reason_for_a_door_is_that_of_the_config(models_of, settings, reason):
    (model,) = function_models(*models_of({"m": settings}))
    assert model.reason == reason


def test_models_of_unknown_price_are_those_without_a_price_in_the_map_and_in_the_config(models_of):
    price = {"input_per_million": 1, "output_per_million": 2}
    registry = {
        "own": {"model": "bedrock/acme.unknown", "fallback": ["priced", "known"]},
        "priced": {"model": "bedrock/acme.unknown", "price": price},
        "known": {"model": "bedrock-mantle-chat:openai.gpt-oss-120b"},
    }
    assert unpriced(*models_of(registry)) == ["models.registry.own"]


def test_an_aliass_options_may_require_litellm_as_they_do_in_build(models_of):
    found = models_of({"own": {"model": "azure/m", "api_base": "https://our.openai.azure.com"}})
    assert why_litellm(*found) == ["models.registry.own: azure/m"]
    assert [model.needs_litellm for model in function_models(*found)] == [True]


def test_a_model_with_options_that_it_refuses_is_listed(models_of):
    (model,) = function_models(*models_of({"own": {"model": "openai/o3", "temperature": 0.2}}))
    assert (model.name, model.lm, model.needs_litellm) == ("openai/o3", None, False)


@pytest.mark.parametrize(
    ("model", "needed"), [("bedrock/amazon.titan-embed-text-v2:0", False), ("voyage/voyage-3", True)]
)
def test_a_held_embedder_needs_litellm_only_if_dspy_sends_its_requests(models_of, model, needed):
    held = ECHO.replace("super().__init__()", f"super().__init__()\n        self.embed = dspy.Embedder({model!r})")
    found = function_models(*models_of({"own": {"model": "openai/gpt-4.1-nano"}}, held))
    assert [model.needs_litellm for model in found] == [False, needed]


def test_a_native_door_needs_no_litellm_and_another_provider_does(models_of):
    registry = {"own": {"model": "bedrock-chat:acme.a", "fallback": ["other"]}, "other": {"model": "cohere/command-r"}}
    assert [model.needs_litellm for model in function_models(*models_of(registry))] == [False, True]
