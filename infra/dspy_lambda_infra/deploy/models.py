"""Asks Bedrock whether the account may use the functions' models. Calls no model, and changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda.models.bedrock.profiles import split_arn, split_profile
from dspy_lambda_infra.deploy.account import open_session
from dspy_lambda_infra.models import Model, function_models
from dspy_lambda_infra.project import Project

# By what an ARN names: Bedrock's operation that describes it, and the operation's argument.
_OPERATIONS = {
    "provisioned-model": ("get_provisioned_model_throughput", "provisionedModelId"),
    "imported-model": ("get_imported_model", "modelIdentifier"),
    "custom-model-deployment": ("get_custom_model_deployment", "customModelDeploymentIdentifier"),
    "prompt-router": ("get_prompt_router", "promptRouterArn"),
    "default-prompt-router": ("get_prompt_router", "promptRouterArn"),
}
_READY = (None, "ACTIVE", "AVAILABLE", "InService", "Updating", "Active")
_MISSING = ("ResourceNotFoundException", "ValidationException")
# An unreachable endpoint delays the page by no more than this.
_CLIENT = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})


@dataclass(frozen=True)
class Access:
    """What the account says about one model.

    Attributes:
        place: where the project names the model.
        state: `unknown` if the account could not be asked.
        detail: the reason, with what to do if the model cannot be called.
    """

    place: str
    model: str
    region: str | None
    state: Literal["granted", "denied", "missing", "unknown"]
    detail: str

    @property
    def line(self) -> str:
        where = f" in {self.region}" if self.region else ""
        return f"{self.place}: {self.model}{where}: {self.detail}"

    def document(self) -> dict[str, Any]:
        return asdict(self)


class _Unanswered(Exception):
    """Bedrock did not describe the model; has the state and the reason."""

    def __init__(self, state: Literal["missing", "unknown"], reason: str) -> None:
        super().__init__(reason)
        self.state = state


def fetch_access(project: Project, region: str | None, unavailable: str) -> list[Access]:
    """Return what the account says about each of the project's models on Bedrock. Never fails.

    Args:
        region: the functions' Region, if it is known.
        unavailable: why the account cannot be asked; empty if it can.
    """
    functions = project.functions.values()
    models = [m for function in functions for m in function_models(project, function) if m.route is not None]
    found = {(m.place, m.name, m.region): m for m in models}
    return [_access(model, model.region or region, unavailable) for model in found.values()]


def _access(model: Model, region: str | None, unavailable: str) -> Access:
    assert model.route is not None
    model_id = model.route.model_id
    if unavailable:
        return Access(model.place, model_id, region, "unknown", f"not asked: {unavailable}")
    if model.route.door in ("mantle-chat", "anthropic"):
        reason = "not asked: Bedrock describes no models of its Mantle endpoint"
        return Access(model.place, model_id, region, "unknown", reason)
    try:
        state, detail = _ask(open_session(region).client("bedrock", config=_CLIENT), model_id)
    except _Unanswered as error:
        return Access(model.place, model_id, region, error.state, str(error))
    except BotoCoreError as error:
        return Access(model.place, model_id, region, "unknown", f"could not be asked: {error}")
    return Access(model.place, model_id, region, state, detail)


def _ask(client: Any, model_id: str) -> tuple[Literal["granted", "denied"], str]:
    arn = split_arn(model_id)
    kind = arn.kind if arn is not None else None
    if kind in _OPERATIONS:
        operation, argument = _OPERATIONS[kind]
        status = _call(client, operation, **{argument: model_id}).get("status")
        return ("granted", "exists") if status in _READY else ("denied", f"is not ready: {status}")
    is_profile = kind in ("inference-profile", "application-inference-profile")
    if is_profile or (arn is None and (split_profile(model_id)[0] is not None or "." not in model_id)):
        profile = _call(client, "get_inference_profile", inferenceProfileIdentifier=model_id)
        models = [found["modelArn"].rpartition("/")[2] for found in profile.get("models", [])]
        # The profile may route to a model that this Region itself does not serve.
        return _availability(client, models[0], is_regional=False) if models else ("granted", "exists")
    return _availability(client, arn.id if arn is not None else model_id, is_regional=True)


def _availability(client: Any, model_id: str, *, is_regional: bool) -> tuple[Literal["granted", "denied"], str]:
    try:
        found = _call(client, "get_foundation_model_availability", modelId=model_id)
    except _Unanswered as error:
        if error.state == "missing":
            raise
        # Another permission, which more people have, tells whether the model exists.
        _call(client, "get_foundation_model", modelIdentifier=model_id)
        raise _Unanswered("unknown", f"exists; access {error}") from None
    agreement = found.get("agreementAvailability", {}).get("status")
    problems = [
        text
        for is_problem, text in (
            (is_regional and found.get("regionAvailability") == "NOT_AVAILABLE", "the Region does not serve it"),
            (found.get("authorizationStatus") == "NOT_AUTHORIZED", "the account is not authorized for it"),
            (found.get("entitlementAvailability") == "NOT_AVAILABLE", "the account has no access to it"),
            (agreement in ("NOT_AVAILABLE", "ERROR"), "its agreement has not been accepted"),
        )
        if is_problem
    ]
    if not problems:
        return "granted", "access granted"
    return "denied", f"ACCESS MISSING: {', '.join(problems)}; request it in Bedrock's model catalog"


def _call(client: Any, operation: str, **arguments: str) -> dict[str, Any]:
    name = client.meta.method_to_api_mapping[operation]
    try:
        answer: dict[str, Any] = getattr(client, operation)(**arguments)
    except ClientError as error:
        # The service's message may quote the signed request.
        code = error.response["Error"]["Code"]
        if code in _MISSING:
            raise _Unanswered("missing", "NO SUCH MODEL: correct its id, or set its region") from None
        raise _Unanswered("unknown", f"could not be asked: {name}: {code}") from None
    return answer
