import pytest

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART
from tests.support import ECHO, RLM


@pytest.fixture
def warned(make_project):
    """Return the warnings for a project with one program, given its `lambda` section and other config keys."""

    def warn(settings, **config):
        project = load_project(make_project({"echo": ECHO}, **{"lambda": settings}, **config))
        return "\n".join(config_warnings(project))

    return warn


def test_the_quickstart_and_a_plain_project_cause_no_warning(warned):
    assert config_warnings(load_project(QUICKSTART)) == []
    assert warned({"defaults": {"sqs": {}}}, models=registry("openai/gpt-4.1-nano")) == ""


def test_a_low_max_receive_count_causes_a_warning(warned):
    assert "sqs.max_receive_count: 1: throttled receives count" in warned(
        {"defaults": {"sqs": {"max_receive_count": 1}}}
    )


@pytest.mark.parametrize("http", [True, False])
def test_a_queue_that_uses_all_reserved_concurrency_causes_a_warning(warned, http):
    settings = {"http": http, "reserved_concurrency": 4, "sqs": {"maximum_concurrency": 4}}
    assert ("uses all of reserved_concurrency" in warned({"defaults": settings})) == http


def test_a_setting_that_the_handler_does_not_have_is_named_with_the_nearest(warned):
    environment = {"DSPY_LAMBDA_IDLE_SECOND": "5", "DSPY_LAMBDA_": "", "IDLE_SECOND": "5"}
    assert warned({"defaults": {"environment": environment}}).splitlines() == [
        "programs.Echo: environment.DSPY_LAMBDA_: is not a setting of the handler, which does not read it",
        "programs.Echo: environment.DSPY_LAMBDA_IDLE_SECOND: is not a setting of the handler, which does not read it; "
        "did you mean DSPY_LAMBDA_IDLE_SECONDS?",
    ]


@pytest.mark.parametrize(
    ("other", "fallback_on", "said"),
    [
        ({}, ["outage"], "other does not have its guardrail: give other"),
        ({"guardrail": {"id": "abc", "version": 1}}, ["content_filter"], ""),
    ],
)
def test_a_fallback_without_the_guardrail_causes_a_warning(warned, other, fallback_on, said):
    guarded = {"guardrail": {"id": "abc", "version": 1}, "fallback": ["other"], "fallback_on": fallback_on}
    model = {"model": "bedrock/amazon.nova-lite-v1:0"}
    warnings = warned({}, models={"default": "m", "registry": {"m": model | guarded, "other": model | other}})
    assert said in warnings if said else not warnings


def registry(model):
    return {"default": "fast", "registry": {"fast": {"model": model, "env": "FAST_KEY"}}}


@pytest.mark.parametrize(
    ("model", "settings", "is_blind"),
    [
        ("openai/gpt-4.1-nano", {}, False),
        ("openai/our-own", {}, True),
        ("openai/our-own", {"alarms": False}, False),
        ("openai/our-own", {"defaults": {"daily_cost_usd": None}}, False),
        ("openai/our-own", {"defaults": {"daily_tokens": 1_000_000}}, False),
    ],
)
def test_a_spend_alarm_on_a_model_of_unknown_price_causes_a_warning(warned, model, settings, is_blind):
    assert (
        "DSPy does not know the price of models.registry.fast" in warned(settings, models=registry(model))
    ) == is_blind


def test_the_warning_names_the_alarm_that_stands_in_and_ends_with_a_price(warned):
    says = warned({"defaults": {"daily_cost_usd": 2.5}}, models=registry("bedrock/acme.unknown"))
    assert "an alarm at 2,500,000 tokens a day stands in for it. Set its price: {input_per_million, " in says
    models = registry("bedrock/acme.unknown")
    models["registry"]["fast"]["price"] = {"input_per_million": 1, "output_per_million": 2}
    assert warned({}, models=models) == ""


def test_a_fallback_of_unknown_price_causes_a_warning(warned):
    models = registry("openai/gpt-4.1-nano")
    models["registry"]["fast"]["fallback"] = ["spare"]
    models["registry"]["spare"] = {"model": "bedrock/acme.unknown"}
    assert "DSPy does not know the price of models.registry.spare" in warned({}, models=models)


VPC = {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}


@pytest.mark.parametrize(
    ("model", "settings", "endpoint"),
    [
        ("bedrock/amazon.nova-lite-v1:0", {}, "com.amazonaws.REGION.bedrock-runtime"),
        ("bedrock/amazon.nova-lite-v1:0", {"region": "eu-west-1"}, "com.amazonaws.eu-west-1.bedrock-runtime"),
        ("bedrock-mantle-chat:openai.gpt-oss-120b", {}, "com.amazonaws.REGION.bedrock-mantle"),
    ],
)
def test_in_a_vpc_the_interface_endpoint_that_a_model_needs_is_named(warned, model, settings, endpoint):
    models = {"default": "m", "registry": {"m": {"model": model, **settings}}}
    assert f"lambda.vpc: models.registry.m is called in the VPC, which needs the interface endpoint {endpoint} " in (
        warned({"vpc": VPC}, models=models)
    )
    assert warned({}, models=models) == ""


def test_in_a_vpc_models_elsewhere_need_no_endpoint(warned):
    assert warned({"vpc": VPC}, models=registry("openai/gpt-4.1-nano")) == ""


def test_an_lm_in_code_of_unknown_price_causes_a_warning(make_project):
    own = ECHO.replace(
        "super().__init__()", 'super().__init__()\n        self.judge = dspy.LM("openai/our-own", api_key="k")'
    )
    project = load_project(make_project({"echo": own}, models=registry("openai/gpt-4.1-nano")))
    (warning,) = config_warnings(project)
    assert "DSPy does not know the price of Echo.judge" in warning


def test_a_variable_named_like_a_key_causes_a_warning(warned):
    says = warned({"defaults": {"environment": {"DB_PASSWORD": "planted", "MAX_TOKENS": "5"}}})
    assert "environment.DB_PASSWORD: if its value is a key" in says
    assert "planted" not in says
    assert "MAX_TOKENS" not in says


def test_config_warnings_are_printed_and_stop_nothing(make_project, capsys):
    project = make_project({"echo": ECHO}, models=registry("openai/our-own"))
    assert main(["template", "--project", str(project), "--output", "-"]) == 0
    assert "warning: programs.Echo: daily_cost_usd" in capsys.readouterr().err


def test_a_program_that_needs_deno_is_named_unless_the_requirements_name_it(make_project):
    project = make_project({"calculate": RLM})
    (warning,) = config_warnings(load_project(project))
    assert warning.startswith("programs.Calculate: Calculate.think (RLM) runs Python in Deno, which the project's")
    for line in ("dspy[deno]>=3.4", "deno"):
        (project / "requirements.txt").write_text(line)
        assert config_warnings(load_project(project)) == []


IN_CODE = """
TEAM = dspy.LM("openai/gpt-4.1-mini")

class Ask(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ask.set_lm(TEAM)
        self.find = dspy.Embedder("openai/text-embedding-3-small")

    def forward(self, question: str):
        return self.ask(question=question)
"""
ON_BEDROCK = {"default": "m", "registry": {"m": {"model": "bedrock/amazon.nova-lite-v1:0"}}}


def test_the_key_of_an_lm_in_code_that_the_function_will_not_have_is_named(make_project):
    project = make_project({"ask": IN_CODE}, models=ON_BEDROCK)
    (warning, *_) = [line for line in config_warnings(load_project(project)) if "takes its key" in line]
    assert "takes its key from OPENAI_API_KEY" in warning
    assert "secrets: [OPENAI_API_KEY]" in warning
    given = {"lambda": {"defaults": {"secrets": ["OPENAI_API_KEY"]}}}
    project = make_project({"ask": IN_CODE}, models=ON_BEDROCK, **given)
    assert [line for line in config_warnings(load_project(project)) if "takes its key" in line] == []


def test_an_embedder_without_numpy_in_the_requirements_is_named(make_project):
    project = make_project({"ask": IN_CODE}, models=ON_BEDROCK)
    assert [line for line in config_warnings(load_project(project)) if "add dspy[numpy]" in line]
    (project / "requirements.txt").write_text("dspy[numpy]\n")
    assert [line for line in config_warnings(load_project(project)) if "add dspy[numpy]" in line] == []


@pytest.mark.parametrize(
    ("own", "level", "said"),
    [
        ("DEBUG", None, "Lambda drops lines below INFO; write lambda.log_level: DEBUG"),
        ("WARNING", "ERROR", "is not read, because Lambda sets the level ERROR"),
        ("WARNING", None, ""),
    ],
)
def test_a_log_level_that_has_no_effect_causes_a_warning(warned, own, level, said):
    warnings = warned({"log_level": level, "defaults": {"environment": {"POWERTOOLS_LOG_LEVEL": own}}})
    assert said in warnings if said else not warnings
