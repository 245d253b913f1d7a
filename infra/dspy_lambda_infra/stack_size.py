"""Checks whether a project fits into one CloudFormation stack, based on the template as AWS translates it."""

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
    """Refuse a template that CloudFormation would reject for its size.

    Args:
        text: the project's SAM template, which is what gets uploaded: it may be longer than its translation.

    Raises:
        ConfigError: the stack is too large; names the limit and how many of the programs fit.
    """
    whole = measure(build(project, project.root))
    whole["bytes"] = max(whole["bytes"], len(text.encode()))
    over = [
        f"{whole[what]:,} {what} (CloudFormation allows {most:,})"
        for what, most in LIMITS.items()
        if whole[what] > most
    ]
    if not over:
        return
    generated = measure(generate(project, project.root))
    # Additions from template.extra.yaml stay, however many programs there are.
    room = {what: most - (whole[what] - generated[what]) for what, most in LIMITS.items()}
    fits = f"{_fitting(project, room)} fit into a stack"
    if project.config.lambda_.alarms:
        fits += f", {_fitting(_without_alarms(project), room)} with lambda.alarms: false"
    raise ConfigError(
        f"{project.root / CONFIG_FILE}: {len(project.functions)} programs result in {', '.join(over)}. Of these "
        f"programs, in the order of their names, {fits}; split the project."
    )


def measure(template: dict[str, Any]) -> Size:
    """Return what CloudFormation counts in a SAM template, after translation."""
    translated = translate_mapping(deepcopy(template), {})
    counts = {what: len(translated.get(what.capitalize(), ())) for what in LIMITS if what != "bytes"}
    return {**counts, "bytes": len(json.dumps(translated, separators=(",", ":")).encode())}


def _fitting(project: Project, room: Size) -> int:
    """Return how many of a project's programs fit, in the order of their names."""

    def is_too_much(count: int) -> bool:
        part = replace(project, functions=dict(islice(project.functions.items(), count)))
        size = measure(generate(part, project.root))
        return any(size[what] > most for what, most in room.items())

    return bisect_left(range(1, len(project.functions) + 1), True, key=is_too_much)


def _without_alarms(project: Project) -> Project:
    settings = project.config.lambda_.model_copy(update={"alarms": False})
    return replace(project, config=project.config.model_copy(update={"lambda_": settings}))
