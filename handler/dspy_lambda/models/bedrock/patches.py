"""What DSPy needs to call models on Bedrock by the function's own role.

Imported by every function, so it imports Bedrock's own modules only once a model needs them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dspy_lambda.dspy_patches.insides import EXECUTION, LM15_ENGINE
from dspy_lambda.dspy_patches.patch import Function, Name, Patch, apply_patch
from dspy_lambda.models.bedrock.doors import PROVIDERS, Route, model_string, route

_CLOUD = "dspy._vendor.lm15.cloud"
_CHAINS = f"{_CLOUD}.chains"
_PROVIDERS = "dspy._vendor.lm15.providers"
_REGION = "aws_region_name"  # LiteLLM's name for an LM's region
# Options of an LM that only Converse knows, under the names that LiteLLM uses, too.
_GUARDRAIL = "guardrailConfig"
_OPTIONS = (_GUARDRAIL, "performanceConfig", "requestMetadata", "thinking", "additionalModelRequestFields")
# LiteLLM's names for credentials, which would end up in code and history.
_CREDENTIALS = {
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_session_name", "aws_profile_name",
    "aws_role_name", "aws_web_identity_token", "aws_sts_endpoint", "aws_external_id",
}  # fmt: skip


class _Address(str):
    """An LM's `api_base`, whose requests are signed for a region that its host may not name: a proxy's, a test's.

    The same text with another region is another address: LMs with equal settings share one engine.
    """

    region: str

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True and getattr(other, "region", None) == self.region

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((str(self), self.region))


def region_of(lm: Any) -> str | None:
    """Return the region for which an LM's requests are signed, if its options, its address or its ARN name one."""
    options = getattr(lm, "kwargs", None)
    address = options.get("api_base") if isinstance(options, dict) else None
    return _region_in(address) if isinstance(address, str) else None


def _region_in(url: str) -> str | None:
    """Return the region that an address was given, or else the one that its host names."""
    from dspy_lambda.models.bedrock.regions import region_in

    return getattr(url, "region", None) or region_in(url)


def _route_models(original: Function) -> Function:
    """Wrap `LM.__init__`: register Bedrock, choose the door, and turn a region into an address."""

    def init(lm: Any, model: Any, *args: Any, **options: Any) -> None:
        guarded = _GUARDRAIL in options
        found = route(model, guarded=guarded) if isinstance(model, str) else None
        if found is not None and (changed := apply_patch(ENGINE)) is not None:
            logging.getLogger(__name__).warning("DSPy has changed; models on Bedrock need LiteLLM: %s", changed)
        elif found is not None:
            if guarded and found.door != "converse":
                raise ValueError(_ignored_guardrail(found))
            if given := _CREDENTIALS & options.keys():
                raise ValueError(
                    f"{', '.join(sorted(given))}: models on Bedrock are called by the function's role; remove it, and "
                    "on your machine set AWS_PROFILE"
                )
            from dspy_lambda.models.bedrock.regions import address, arn_region

            model = _named(model, found, guarded)
            if region := options.pop(_REGION, None) or arn_region(found.model_id):
                options["api_base"] = _Address(options.get("api_base") or address(found.door, region))
                options["api_base"].region = region
        original(lm, model, *args, **options)

    return init


def _save_region(original: Function) -> Function:
    """Wrap `LM.dump_state`: DSPy drops the address when it loads a program, and with it would go the region."""

    def dump(lm: Any) -> Any:
        state = original(lm)
        if isinstance(state.get("api_base"), _Address):
            from dspy_lambda.models.bedrock.regions import address

            region, found = state["api_base"].region, route(lm.model)
            state[_REGION] = region
            if found is not None and str(state["api_base"]) == address(found.door, region):
                del state["api_base"]
        return state

    return dump


def _named(model: str, found: Route, guarded: bool) -> str:
    """Return the name that selects a model's door and under which DSPy's catalog knows what the model can do."""
    if found.door != "converse":
        return model_string(model, None, guarded=guarded)
    plain = f"bedrock/{found.model_id}"
    again = route(plain, guarded=guarded)
    return plain if again is not None and again.door == "converse" else model


def _ignored_guardrail(found: Route) -> str:
    return (
        f"the {found.door} door would ignore guardrailConfig; pass it to dspy.LM('bedrock/{found.model_id}'), which "
        "then uses Converse"
    )


def _carry_options(canonical: Function) -> Function:
    """Wrap `execution._canonical`: lm15 refuses options that it does not know."""

    def carried(call: Any, *, compat: Any = None) -> Any:
        extra = {name: call.legacy[name] for name in _OPTIONS if name in call.legacy}
        guarded = _GUARDRAIL in extra
        found = route(str(call.legacy.get("model")), guarded=guarded) if extra else None
        if found is None:
            return canonical(call, compat=compat)
        if guarded and found.door != "converse":  # an option of this call, or of a copy of its LM
            from dspy.utils.exceptions import LMUnsupportedFeatureError  # after others, DSPy would try LiteLLM

            raise LMUnsupportedFeatureError(_ignored_guardrail(found))
        kept = {name: value for name, value in call.legacy.items() if name not in extra}
        request = canonical(replace(call, legacy=kept), compat=compat)
        extensions = {**(request.config.extensions or {}), **extra}
        return replace(request, config=replace(request.config, extensions=extensions))

    return carried


def _sign_for_region(init_routing: Function) -> Function:
    """Wrap `_Routing._init_routing`: sign for the region of an LM or of its address, not for AWS_REGION."""

    def routed(self: Any, config: Any, model_type: Any) -> None:
        urls = None if config is None or config.settings else config.base_urls
        if regions := {provider: {"region": region} for provider, region in _regions_in(urls or {})}:
            config = replace(config, settings=regions)
        init_routing(self, config, model_type)

    return routed


def _regions_in(base_urls: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the providers on Bedrock whose addresses have a region, each with its region."""
    for provider, url in base_urls.items():
        if provider in PROVIDERS and (region := _region_in(url)):
            yield provider, region


def _sign_encoded_path(sign_request: Function) -> Function:
    """Wrap `hosts.sign_request`: services other than S3 expect an encoded path to be encoded again for a signature."""

    def signed(*args: Any, url: str, **options: Any) -> Any:
        from dspy_lambda.models.bedrock.signing import encoded_again

        return sign_request(*args, url=encoded_again(url), **options)

    return signed


def _use_role(credential_provider: Function) -> Function:
    """Wrap `chains.credential_provider`: credentials that all of Bedrock's models share, and no snapshot keeps."""

    def provide(policy: Any, ctx: Any, named: Any = None) -> Any:
        if named is not None or not policy.provider.startswith("bedrock"):
            return credential_provider(policy, ctx, named)
        from dspy_lambda.models.bedrock.credentials import RoleCredentials

        return RoleCredentials(policy)

    return provide


def _build_on_loop(build: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap `AsyncBaseProviderLM._build`: credentials that are at hand need no thread."""

    async def built(self: Any, function: Any, *args: Any, **options: Any) -> Any:
        is_ready = getattr(self._inner.api_key, "is_ready", None)
        if is_ready is not None and is_ready():
            return function(*args, **options)
        return await build(self, function, *args, **options)

    return built


def _register() -> None:
    from dspy_lambda.models.bedrock.provider import register

    register()


BEDROCK = Patch(
    "models on Amazon Bedrock",
    "they are called by the function's role, without LiteLLM (111 MB and seconds of a cold start), the SDK and a key",
    (
        Name("dspy.clients.lm", "LM.__init__", "self model ...", wrap=_route_models),
        Name("dspy.clients.lm", "LM.dump_state", "self", wrap=_save_region),
    ),
)
# Applied with the first model on Bedrock: functions without one need not import what AWS credentials need.
ENGINE = Patch(
    "the engine for Amazon Bedrock",
    "LiteLLM; signatures are made on the loop, without a hop to a thread and back for each call",
    (
        Name(EXECUTION, "_canonical", "call compat", wrap=_carry_options),
        Name(LM15_ENGINE, "_Routing._init_routing", "self config model_type", wrap=_sign_for_region),
        Name(_CHAINS, "credential_provider", "policy ctx named", wrap=_use_role),
        Name(_CHAINS, "resolve", "policy ctx named"),
        Name(f"{_CLOUD}.sigv4", "sign", "method url headers payload credentials region service now"),
        Name(f"{_CLOUD}.hosts", "sign_request", "policy settings ...", wrap=_sign_encoded_path),
        Name(f"{_PROVIDERS}.base", "BaseProviderLM._bind_access"),
        Name(f"{_PROVIDERS}.base", "BaseProviderLM._wire_request", "self request"),
        Name(f"{_PROVIDERS}.base", "BaseProviderLM._with_login_hint", "self error"),
        Name(
            f"{_PROVIDERS}.async_base",
            "AsyncBaseProviderLM._build",
            "self build args kwargs",
            is_async=True,
            wrap=_build_on_loop,
        ),
        Name("dspy._vendor.lm15.access", "BEDROCK_CHAT"),
    ),
    _register,
)
