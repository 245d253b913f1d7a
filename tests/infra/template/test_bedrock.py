import pytest

from dspy_lambda_infra.cli import main
from tests.infra.template.matrix import BEDROCK, BEDROCK_MODELS
from tests.infra.template.support import variables
from tests.support import ECHO

P, HERE = "arn:${AWS::Partition}:bedrock", "${AWS::Region}"
IN_ACCOUNT = "${AWS::AccountId}"
INVOKE = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
ARN = "arn:aws:bedrock:us-east-1:123456789012"


def granted(found, role="EchoRole"):
    """A role's statements on Bedrock as (actions, resources, condition), with substitutions as their text."""
    (policy,) = found[role]["Properties"]["Policies"]
    statements = [s for s in policy["PolicyDocument"]["Statement"] if "bedrock" in str(s["Action"])]
    for statement in statements:
        assert statement["Effect"] == "Allow"
    return [
        (s["Action"], texts(s["Resource"]), {k: texts([v])[0] for k, v in s["Condition"]["StringEquals"].items()})
        if "Condition" in s
        else (s["Action"], texts(s["Resource"]), None)
        for s in statements
    ]


def texts(resources):
    return [resource if isinstance(resource, str) else resource["Fn::Sub"] for resource in resources]


def one(model, **settings):
    return {"default": "m", "registry": {"m": {"model": model, **settings}}}


@pytest.mark.parametrize("model", ["bedrock/amazon.nova-lite-v1:0", "bedrock-chat:amazon.nova-lite-v1:0"])
def test_a_foundation_model_is_allowed_in_the_functions_region(make, model):
    model_arn = f"{P}:{HERE}::foundation-model/amazon.nova-lite-v1:0"
    assert granted(make(models=one(model))) == [(INVOKE, [model_arn], None)]


def test_the_region_is_the_aliass(make):
    found = make(models=one("bedrock/amazon.nova-lite-v1:0", region="eu-west-1"))
    assert granted(found) == [(INVOKE, [f"{P}:eu-west-1::foundation-model/amazon.nova-lite-v1:0"], None)]


@pytest.mark.parametrize("geography", ["us", "eu", "apac", "jp", "au", "us-gov"])
def test_the_models_behind_an_inference_profile_are_allowed_through_it_only(make, geography):
    found = make(models=one(f"bedrock/{geography}.amazon.nova-lite-v1:0"))
    profile = f"{P}:{HERE}:{IN_ACCOUNT}:inference-profile/{geography}.amazon.nova-lite-v1:0"
    assert granted(found) == [
        (INVOKE, [profile], None),
        (INVOKE, [f"{P}:*::foundation-model/amazon.nova-lite-v1:0"], {"bedrock:InferenceProfileArn": profile}),
    ]


def test_a_global_profile_also_needs_the_models_arn_without_a_region(make):
    found = make(models=one("bedrock/global.anthropic.claude-opus-5"))
    profile = f"{P}:{HERE}:{IN_ACCOUNT}:inference-profile/global.anthropic.claude-opus-5"
    models = [f"{P}:{region}::foundation-model/anthropic.claude-opus-5" for region in ("*", "")]
    assert granted(found)[1] == (INVOKE, models, {"bedrock:InferenceProfileArn": profile})


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        (f"{ARN}:provisioned-model/abcdefghijkl", [(f"{ARN}:provisioned-model/abcdefghijkl",)]),
        (f"{ARN}:imported-model/abcdefghijkl", [(f"{ARN}:imported-model/abcdefghijkl",)]),
        (f"{ARN}:custom-model-deployment/abcdefghijkl", [(f"{ARN}:custom-model-deployment/abcdefghijkl",)]),
        (
            f"{ARN}:inference-profile/us.amazon.nova-lite-v1:0",
            [
                (f"{ARN}:inference-profile/us.amazon.nova-lite-v1:0",),
                (f"{P}:*::foundation-model/amazon.nova-lite-v1:0", "InferenceProfileArn"),
            ],
        ),
        (
            f"{ARN}:application-inference-profile/abcdefghijkl",
            [
                (f"{ARN}:application-inference-profile/abcdefghijkl",),
                (f"{P}:*::foundation-model/*", "InferenceProfileArn"),
            ],
        ),
        (
            f"{ARN}:default-prompt-router/anthropic.claude:1",
            [
                (f"{ARN}:default-prompt-router/anthropic.claude:1",),
                (f"{P}:*::foundation-model/*", f"{P}:*:{IN_ACCOUNT}:inference-profile/*", "PromptRouterArn"),
            ],
        ),
    ],
    ids=["provisioned", "imported", "custom", "profile", "application profile", "router"],
)
def test_an_arn_is_allowed_as_it_stands_and_what_is_behind_it_through_it_only(make, model_id, expected):
    found = []
    for actions, resources, condition in granted(make(models=one(f"bedrock/{model_id}"))):
        assert actions == INVOKE
        assert condition is None or list(condition.values()) == [model_id]
        found.append((*resources, *(key.removeprefix("bedrock:") for key in condition or ())))
    assert found == expected


@pytest.mark.parametrize(
    "door", ["bedrock-mantle-chat:openai.gpt-oss-120b", "bedrock-anthropic:anthropic.claude-opus-5"]
)
def test_the_mantle_doors_need_another_permission(make, door):
    project = f"arn:${{AWS::Partition}}:bedrock-mantle:us-east-2:{IN_ACCOUNT}:project/*"
    assert granted(make(models=one(door, region="us-east-2"))) == [("bedrock-mantle:CreateInference", [project], None)]


@pytest.mark.parametrize(
    ("name", "arn"),
    [
        ("abc123", f"{P}:eu-west-1:{IN_ACCOUNT}:guardrail/abc123"),
        (f"{ARN}:guardrail/abc123", f"{ARN}:guardrail/abc123"),
    ],
    ids=["id", "arn"],
)
def test_a_guardrail_may_be_applied(make, name, arn):
    settings = {"region": "eu-west-1", "guardrail": {"id": name, "version": 1}}
    found = granted(make(models=one("bedrock/amazon.nova-lite-v1:0", **settings)))
    assert found[1:] == [("bedrock:ApplyGuardrail", [arn], None)]


HELD = """
class Echo(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judges = [dspy.LM("bedrock/acme.judge", aws_region_name=name) for name in ("eu-west-1", "eu-north-1")]
        self.guarded = dspy.LM(
            "bedrock/acme.guarded", guardrailConfig={"guardrailIdentifier": "abc123", "guardrailVersion": "1"}
        )
        self.embed = dspy.Embedder("bedrock/amazon.titan-embed-text-v2:0", aws_region_name="eu-central-1")

    def forward(self, question: str): ...
"""


def test_models_in_code_are_allowed_in_their_own_region_and_with_their_own_guardrail(make):
    found = granted(make(modules={"echo": HELD}, models=one("openai/gpt-4.1-nano")))
    assert [arn for _, arns, _ in found for arn in arns] == [
        f"{P}:eu-west-1::foundation-model/acme.judge",
        f"{P}:eu-north-1::foundation-model/acme.judge",
        f"{P}:{HERE}::foundation-model/acme.guarded",
        f"{P}:{HERE}:{IN_ACCOUNT}:guardrail/abc123",
        f"{P}:eu-central-1::foundation-model/amazon.titan-embed-text-v2:0",
    ]


def test_each_function_may_call_its_own_models_only(make):
    models = {
        "default": "a",
        "registry": {
            **{alias: {"model": f"bedrock/acme.{alias}"} for alias in "abcd"},
            "a": {"model": "bedrock/acme.a", "fallback": ["b"]},
            "unused": {"model": "bedrock/acme.unused"},
        },
    }
    own = ECHO.replace("Echo", "Own").replace(
        "super().__init__()", 'super().__init__()\n        self.judge = dspy.LM("bedrock-chat:acme.held")'
    )
    found = make(
        modules={"echo": ECHO, "own": own},
        models=models,
        program_models={"Own": "c"},
        predictor_models={"Own": {"predict": "d"}},
    )
    names = {
        role: [arn.rpartition(".")[2] for _, arns, _ in granted(found, role) for arn in arns]
        for role in ("EchoRole", "OwnRole", "CatalogueRole")
    }
    assert names == {"EchoRole": ["a", "b"], "OwnRole": ["c", "d", "held"], "CatalogueRole": []}


def test_models_elsewhere_need_no_permission(make):
    assert granted(make(models=one("openai/gpt-4.1-nano"))) == []


def test_a_bedrock_model_needs_no_key(make_project, make, capsys):
    models = one("bedrock/amazon.nova-lite-v1:0")
    assert not any("SECRET" in name for name in variables(make(models=models)))
    root = make_project({"echo": ECHO}, models=models)
    assert main(["template", "--project", str(root), "--output", str(root / "template.yaml")]) == 0
    assert "key" not in capsys.readouterr().err.casefold()


def test_a_bearer_key_is_a_secret_and_changes_no_permission(make):
    registry = {"m": BEDROCK_MODELS["claude"]}
    with_key = make(models={"default": "m", "registry": registry})
    without = {key: value for key, value in BEDROCK_MODELS["claude"].items() if key != "env"}
    assert granted(with_key) == granted(make(models={"default": "m", "registry": {"m": without}}))
    assert "AWS_BEARER_TOKEN_BEDROCK" in str(variables(with_key))


@pytest.mark.parametrize("model_id", ["*", "amazon.nova ${AWS::Region}", "acme.*"])
def test_an_id_that_would_widen_the_permission_is_refused(make_project, capsys, model_id):
    root = make_project({"echo": ECHO}, models=one(f"bedrock/{model_id}"))
    assert main(["template", "--project", str(root), "--output", str(root / "template.yaml")]) == 2
    assert "models.registry.m: bedrock/" in capsys.readouterr().err


def test_wildcards_are_only_allowed_through_a_profile_or_a_router(make):
    statements = granted(make(models=BEDROCK))
    assert len(statements) > len(BEDROCK_MODELS)
    wide = {arn for actions, arns, condition in statements for arn in arns if "*" in arn and not condition}
    assert wide == {f"arn:${{AWS::Partition}}:bedrock-mantle:{HERE}:{IN_ACCOUNT}:project/*"}


@pytest.mark.parametrize(
    "held",
    [
        'dspy.LM("bedrock/acme.held", aws_region_name="eu-west-3")',
        'dspy.LM("bedrock/acme.held", api_base="https://bedrock-runtime-fips.eu-west-3.amazonaws.com")',
        'dspy.Embedder("bedrock/cohere.embed-held", aws_region_name="eu-west-3")',
    ],
)
def test_a_model_in_code_is_allowed_in_the_region_where_the_code_calls_it(make, held):
    own = ECHO.replace("super().__init__()", f"super().__init__()\n        self.held = {held}")
    found = granted(make(modules={"echo": own}, models=one("openai/gpt-4.1-nano")))
    (arn,) = found[0][1]
    assert (len(found), arn.rpartition("/")[0]) == (1, f"{P}:eu-west-3::foundation-model")


def test_models_in_code_that_are_called_in_two_regions_are_allowed_in_both(make):
    own = ECHO.replace(
        "super().__init__()",
        "super().__init__()\n        self.held = [dspy.LM('bedrock/acme.held', aws_region_name=r) "
        "for r in ('eu-west-3', 'eu-west-1')]",
    )
    found = granted(make(modules={"echo": own}, models=one("openai/gpt-4.1-nano")))
    assert [arns for _, arns, _ in found] == [
        [f"{P}:{region}::foundation-model/acme.held"] for region in ("eu-west-3", "eu-west-1")
    ]


def test_the_region_is_that_of_an_aliass_address(make):
    found = make(models=one("bedrock/acme.a", api_base="https://vpce-1-2.bedrock-runtime.eu-west-3.vpce.amazonaws.com"))
    assert granted(found) == [(INVOKE, [f"{P}:eu-west-3::foundation-model/acme.a"], None)]


def test_a_guardrail_of_an_lm_in_code_may_be_applied(make):
    options = '{"guardrailIdentifier": "abc123", "guardrailVersion": "1"}'
    own = ECHO.replace(
        "super().__init__()",
        f'super().__init__()\n        self.held = dspy.LM("bedrock/acme.held", guardrailConfig={options})',
    )
    found = granted(make(modules={"echo": own}, models=one("openai/gpt-4.1-nano")))
    assert found[1:] == [("bedrock:ApplyGuardrail", [f"{P}:{HERE}:{IN_ACCOUNT}:guardrail/abc123"], None)]
