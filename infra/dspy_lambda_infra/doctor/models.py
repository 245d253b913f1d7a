"""`dspy-lambda doctor`: the models that programs call, configured ones and those that they hold in code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dspy

from dspy_lambda.dspy_patches.insides import has_price
from dspy_lambda.dspy_patches.own_models import PARALLEL
from dspy_lambda.models.registry import build_models
from dspy_lambda.settings import Settings
from dspy_lambda_infra.artifact.litellm import held_lms, uses_litellm, without_gateways
from dspy_lambda_infra.project import Function, Project, announce_imports, load_project
from dspy_lambda_infra.report import report
from dspy_lambda_infra.table import table


@dataclass(frozen=True)
class ModelUse:
    """A model that a program may call.

    Attributes:
        names: where the program has it: an alias, or `module.attribute` and `Program.predictor` for an LM in code.
        needs_litellm: whether DSPy calls it through LiteLLM.
        is_priced: whether DSPy's price map has it; otherwise `cost_usd` is null.
        max_parallel_requests: its limit in one process; None if there is none.
        is_in_code: whether the program holds the LM itself.
    """

    program: str
    names: list[str]
    model: str
    needs_litellm: bool
    is_priced: bool
    max_parallel_requests: int | None
    is_in_code: bool


def run_models(root: Path, *, as_json: bool = False) -> int:
    """Print the models of all programs that load.

    Raises:
        ConfigError: A program cannot be loaded; the models of the others are printed first.
    """
    announce_imports(root)
    project = load_project(root)
    uses = [use for function in project.functions.values() for use in model_uses(project, function)]
    report(_text(uses), {"models": [asdict(use) for use in uses], "failed": project.failed}, as_json=as_json)
    project.require_loaded()
    return 0


def model_uses(project: Project, function: Function) -> list[ModelUse]:
    """Return the models that a program's config gives it, and those of the LMs that it holds."""
    if function.program is None:
        return []
    models = project.config.models.registry
    keys = Settings(variables={model.env: "unset" for model in models.values() if model.env})
    aliases = build_models(project.config, set(project.aliases(function)), project.root, 60, keys)
    own: dict[int, tuple[list[str], dspy.LM]] = {}
    for place, lm in held_lms(function):
        if isinstance(lm, dspy.LM):
            names = own.setdefault(id(lm), ([], lm))[0]
            names.extend(name for name in [_short(place, function)] if name not in names)
    found = [([alias], aliases[alias], models[alias].max_parallel_requests) for alias in project.aliases(function)]
    found += [(names, lm, lm.kwargs.get(PARALLEL)) for names, lm in own.values()]
    with without_gateways():
        return [
            ModelUse(function.name, names, lm.model, uses_litellm(lm), has_price(lm), most, id(lm) in own)
            for names, lm, most in found
        ]


def _short(place: str, function: Function) -> str:
    """Shorten `package.modules.file.NAME` to `file.NAME`, and `Program.predictor.lm` to `Program.predictor`."""
    if place.startswith(f"{function.name}."):
        return place.removesuffix(".lm")
    return ".".join(place.split(".")[-2:])


def _text(uses: list[ModelUse]) -> str:
    cells: list[list[Any]] = [["program", "name", "model", "engine", "price", "parallel requests"]]
    for use in uses:
        engine, price = "LiteLLM" if use.needs_litellm else "native", "known" if use.is_priced else "unknown"
        most = "" if use.max_parallel_requests is None else str(use.max_parallel_requests)
        cells.append([use.program, ", ".join(use.names), use.model, engine, price, most])
    return "\n".join(table(cells, words=5))
