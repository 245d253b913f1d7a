"""The models that programs call: configured ones and those that they hold in code. Calls no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_lambda.dspy_patches.own_models import PARALLEL
from dspy_lambda_infra.models import Model, function_models
from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.table import table


@dataclass(frozen=True)
class ModelUse:
    """A model that a program may call.

    Attributes:
        names: where the program has it: an alias, or `module.attribute` and `Program.predictor` for an LM in code.
        door: which of Bedrock's APIs serves it; None if it is not on Bedrock.
        reason: why that door.
        region: where Bedrock is called; None for the function's own Region.
        needs_litellm: whether DSPy calls it through LiteLLM.
        is_priced: whether its price is known; otherwise `cost_usd` is null.
        max_parallel_requests: its limit in one process; None if there is none.
        is_in_code: whether the program holds the LM itself.
    """

    program: str
    names: list[str]
    model: str
    door: str | None
    reason: str | None
    region: str | None
    needs_litellm: bool
    is_priced: bool
    max_parallel_requests: int | None
    is_in_code: bool


def model_uses(project: Project, function: Function) -> list[ModelUse]:
    """Return the models that a program's config gives it, and those of the LMs that it holds."""
    if function.program is None:
        return []
    found: dict[int, ModelUse] = {}
    for model in function_models(project, function):
        key = id(model.settings or model.lm)
        name = _short(model.place, function)
        if key not in found:
            found[key] = _use(function.name, name, model)
        elif name not in found[key].names:
            found[key].names.append(name)
    return list(found.values())


def _use(program: str, name: str, model: Model) -> ModelUse:
    held = getattr(model.lm, "kwargs", {}).get(PARALLEL)
    return ModelUse(
        program=program,
        names=[name],
        model=model.name,
        door=model.route.door if model.route is not None else None,
        reason=model.reason or None,
        region=model.region,
        needs_litellm=model.needs_litellm,
        is_priced=model.is_priced,
        max_parallel_requests=held if model.settings is None else model.settings.max_parallel_requests,
        is_in_code=model.settings is None,
    )


def _short(place: str, function: Function) -> str:
    """Shorten `package.modules.file.NAME` to `file.NAME`, and `Program.predictor.lm` to `Program.predictor`."""
    if place.startswith("models.registry."):
        return place.removeprefix("models.registry.")
    if place.startswith(f"{function.name}."):
        return place.removesuffix(".lm")
    return ".".join(place.split(".")[-2:])


def models_text(uses: list[ModelUse]) -> str:
    """Return a table, and below it why models on Bedrock have their doors and what a missing price means."""
    cells: list[list[Any]] = [["program", "name", "model", "engine", "price", "parallel requests"]]
    notes: dict[str, None] = {}
    for use in uses:
        engine = "LiteLLM" if use.needs_litellm else "native"
        if use.door is not None:
            engine = f"{use.door} ({use.region or 'own Region'})"
            notes[f"{use.model}: door {use.door}, because {use.reason}"] = None
        most = use.max_parallel_requests
        price = "known" if use.is_priced else "unknown"
        cells.append([use.program, ", ".join(use.names), use.model, engine, price, str(most or "")])
    if any(not use.is_priced for use in uses):
        notes["price unknown: cost_usd is null; set price in models.registry, or daily_tokens for an alarm"] = None
    return "\n".join([*table(cells, words=5), *(["", *notes] if notes else [])])
