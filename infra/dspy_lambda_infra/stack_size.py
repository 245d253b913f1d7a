"""Whether a project fits into one CloudFormation stack, counted in the template as AWS translates it."""

from __future__ import annotations

import json
from bisect import bisect_left
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.config import CONFIG_FILE
from dspy_lambda_infra.deploy.translate import translate_mapping
from dspy_lambda_infra.project import Project
from dspy_lambda_infra.template import build, generate

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
LIMITS = {"resources": 500, "outputs": 200, "parameters": 200, "bytes": 1_000_000}
Size = dict[str, int]


def check_size(project: Project, text: str) -> None:
    """Refuse a template that CloudFormation would refuse for its size.

    Args:
        text: the project's SAM template, which is uploaded: it may be longer than what AWS makes of it.

    Raises:
        ConfigError: the stack is too large; says which limit, and how many of the programs fit.
    """
    whole = measure(build(project, project.root))
    whole["bytes"] = max(whole["bytes"], len(text.encode()))
    over = [
        f"{whole[what]:,} {what} (CloudFormation takes {most:,})" for what, most in LIMITS.items() if whole[what] > most
    ]
    if not over:
        return
    generated = measure(generate(project, project.root))
    # What template.extra.yaml adds stays, however many programs there are.
    room = {what: most - (whole[what] - generated[what]) for what, most in LIMITS.items()}
    fits = f"{_fitting(project, room)} fit into a stack"
    if project.config.lambda_.alarms:
        fits += f", {_fitting(_without_alarms(project), room)} with lambda.alarms: false"
    raise ConfigError(
        f"{project.root / CONFIG_FILE}: {len(project.functions)} programs make {', '.join(over)}. Of these programs "
        f"(the first by name) {fits}; split the project."
    )


def measure(template: dict[str, Any]) -> Size:
    """What CloudFormation counts of a SAM template, after its translation."""
    translated = translate_mapping(deepcopy(template), {})
    counts = {what: len(translated.get(what.capitalize(), ())) for what in LIMITS if what != "bytes"}
    return {**counts, "bytes": len(json.dumps(translated, separators=(",", ":")).encode())}


def _fitting(project: Project, room: Size) -> int:
    """How many of a project's programs, the first by name, fit."""

    def is_too_much(count: int) -> bool:
        part = replace(project, functions=dict(islice(project.functions.items(), count)))
        size = measure(generate(part, project.root))
        return any(size[what] > most for what, most in room.items())

    return bisect_left(range(1, len(project.functions) + 1), True, key=is_too_much)


def _without_alarms(project: Project) -> Project:
    settings = project.config.lambda_.model_copy(update={"alarms": False})
    return replace(project, config=project.config.model_copy(update={"lambda_": settings}))
