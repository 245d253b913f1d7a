"""Settings that may be intended, but otherwise cost records, throttle callers or disable an alarm."""

from __future__ import annotations

import dspy

from dspy_lambda.dspy_patches.insides import has_price
from dspy_lambda.settings import Settings
from dspy_lambda_infra.artifact.litellm import held_lms
from dspy_lambda_infra.project import KEY_NAME, Function, Project

# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
_ADVISED_RECEIVES = 5


def config_warnings(project: Project) -> list[str]:
    """Return one line per warning, with its fix; none of them stops a deployment."""
    found = []
    for function in project.functions.values():
        warnings = [*_queue(function), *_variables(function), *_spend_alarm(project, function)]
        found += [f"programs.{function.name}: {warning}" for warning in warnings]
    return found


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


def _spend_alarm(project: Project, function: Function) -> list[str]:
    settings = function.settings
    if not project.config.lambda_.alarms or not settings.daily_cost_usd or settings.daily_tokens:
        return []
    return [
        f"daily_cost_usd: DSPy does not know the price of {place}, and the spend alarm ignores calls of unknown cost; "
        "set daily_tokens for an alarm on tokens"
        for place in _unpriced(project, function)
    ]


def _unpriced(project: Project, function: Function) -> list[str]:
    """Return where a program's models without a known price are: an alias in the config, or an attribute."""
    registry, aliases = project.config.models.registry, project.config.aliases_of(function.name)
    lms = [(f"models.registry.{alias}", dspy.LM(registry[alias].model)) for alias in aliases]
    lms += [(place, lm) for place, lm in held_lms(function) if isinstance(lm, dspy.LM)]
    return list(dict.fromkeys(place for place, lm in lms if not has_price(lm)))
