"""Settings that may be intended, but otherwise cost records, throttle callers or disable an alarm."""

from __future__ import annotations

import dspy

from dspy_lambda.models.bedrock.doors import MANTLE
from dspy_lambda.programs.interpreters import HOW_TO_GET_DENO
from dspy_lambda.settings import Settings
from dspy_lambda_infra.artifact.requirements import read_requirements
from dspy_lambda_infra.deno import why_deno
from dspy_lambda_infra.model_names import unknown_region
from dspy_lambda_infra.models import function_models, unpriced
from dspy_lambda_infra.project import KEY_NAME, Function, Project
from dspy_lambda_infra.telemetry import telemetry_warnings
from dspy_lambda_infra.template.alarms import daily_tokens

# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
_ADVISED_RECEIVES = 5


def config_warnings(project: Project) -> list[str]:
    """Return one line per warning, with its fix; none of them stops a deployment."""
    found = [
        f"models.registry.{alias}.region: {unknown}"
        for alias, model in project.config.models.registry.items()
        if model.region is not None and (unknown := unknown_region(model.region))
    ]
    for function in project.functions.values():
        warnings = [*_queue(function), *_variables(function), *_spend_alarm(project, function)]
        warnings += [*_endpoints(project, function), *_interpreter(project, function), *_guardrails(project, function)]
        warnings += [*_keys(project, function), *_numpy(project, function), *telemetry_warnings(project, function)]
        warnings += _log_level(project, function)
        found += [f"programs.{function.name}: {warning}" for warning in warnings]
    return found


def _keys(project: Project, function: Function) -> list[str]:
    """Return the keys of LMs in code that the function will not have."""
    known = project.secrets(function).keys() | function.settings.environment.keys()
    return [
        f"{model.place} takes its key from {model.key}, which the function does not have: write "
        f"secrets: [{model.key}], unless the program never calls it"
        for model in function_models(project, function)
        if model.key is not None and model.key not in known
    ]


def _numpy(project: Project, function: Function) -> list[str]:
    listed = read_requirements(project.root).listed
    if any(r.name == "numpy" or (r.name == "dspy" and "numpy" in r.extras) for r in listed):
        return []
    return [
        f"{model.place}: dspy.Embedder needs numpy, which the project's requirements do not name: add dspy[numpy]"
        for model in function_models(project, function)
        if isinstance(model.lm, dspy.Embedder)
    ]


def _queue(function: Function) -> list[str]:
    settings, sqs = function.settings, function.settings.sqs
    found = []
    if sqs and settings.http and sqs.maximum_concurrency == settings.reserved_concurrency:
        found.append(
            f"sqs.maximum_concurrency: {sqs.maximum_concurrency} uses all of reserved_concurrency: while the queue "
            "is busy, HTTP callers are throttled; raise reserved_concurrency"
        )
    if sqs and sqs.max_receive_count < _ADVISED_RECEIVES:
        found.append(
            f"sqs.max_receive_count: {sqs.max_receive_count}: throttled receives count too and can send a record to "
            f"the dead-letter queue; AWS recommends {_ADVISED_RECEIVES} or more"
        )
    return found


def _variables(function: Function) -> list[str]:
    unknown = [
        f"environment.{name}: is not a setting of the handler, which does not read it"
        + (f"; did you mean {meant}?" if meant else "")
        for name, meant in Settings.from_environment(function.environment).unknown
    ]
    return unknown + [
        f"environment.{name}: if its value is a key, everyone with access to the function can read it; put it into SSM "
        f"or Secrets Manager and write secrets: [{name}]"
        for name, value in function.settings.environment.items()
        if value and KEY_NAME.search(name)
    ]


def _log_level(project: Project, function: Function) -> list[str]:
    """https://docs.aws.amazon.com/powertools/python/latest/core/logger/#aws-lambda-advanced-logging-controls-alc"""
    own, level = function.settings.environment.get("POWERTOOLS_LOG_LEVEL", "").upper(), project.log_level(function)
    if own and level:
        return [f"environment.POWERTOOLS_LOG_LEVEL: is not read, because Lambda sets the level {level}; remove it"]
    if own in ("DEBUG", "TRACE"):
        return [f"environment.POWERTOOLS_LOG_LEVEL: Lambda drops lines below INFO; write lambda.log_level: {own}"]
    return []


def _spend_alarm(project: Project, function: Function) -> list[str]:
    settings = function.settings
    if not project.config.lambda_.alarms or not settings.daily_cost_usd or settings.daily_tokens:
        return []
    return [
        f"daily_cost_usd: DSPy does not know the price of {place}, and the spend alarm ignores calls of unknown cost; "
        f"an alarm at {daily_tokens(project, function):,} tokens a day stands in for it. Set "
        + ("its price: {input_per_million, output_per_million}, or " if place.startswith("models.registry.") else "")
        + "daily_tokens for another threshold"
        for place in dict.fromkeys(unpriced(project, function))
    ]


def _endpoints(project: Project, function: Function) -> list[str]:
    """Return the interface endpoints that a function in a VPC needs for its models on Bedrock.

    https://docs.aws.amazon.com/bedrock/latest/userguide/vpc-interface-endpoints.html
    """
    if not project.config.lambda_.vpc:
        return []
    needed: dict[str, str] = {}
    for model in function_models(project, function):
        if model.route is not None:
            host = "bedrock-mantle" if model.route.door in MANTLE else "bedrock-runtime"
            needed.setdefault(f"com.amazonaws.{model.region or 'REGION'}.{host}", model.place)
    return [
        f"lambda.vpc: {place} is called in the VPC, which needs the interface endpoint {endpoint} with private DNS "
        "unless its subnets have a route to the internet"
        for endpoint, place in needed.items()
    ]


def _guardrails(project: Project, function: Function) -> list[str]:
    registry = project.config.models.registry
    return [
        f"models.registry.{alias}.fallback: {other} does not have its guardrail: give {other} the guardrail, or remove "
        "it from the list"
        for alias in project.aliases(function)
        if registry[alias].guardrail is not None
        for other in registry[alias].fallback
        if registry[other].guardrail != registry[alias].guardrail
    ]


def _interpreter(project: Project, function: Function) -> list[str]:
    why = why_deno(function.program) if function.program else None
    if why is None or project.config.lambda_.layers:
        return []
    listed = read_requirements(project.root).listed
    if any(r.name == "deno" or (r.name == "dspy" and "deno" in r.extras) for r in listed):
        return []
    return [f"{why} runs Python in Deno, which the project's requirements do not name: {HOW_TO_GET_DENO}"]
