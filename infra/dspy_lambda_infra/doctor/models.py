"""Shows how each model of a function will be called, and whether its cost is known. Calls no model."""

from __future__ import annotations

from typing import Any

from dspy_lambda_infra.models import Model, function_models
from dspy_lambda_infra.project import CATALOGUE, Project, logical_id


def models_document(project: Project, names: list[str]) -> list[dict[str, Any]]:
    """Return the models of these functions, which are given by their programs' names, as a JSON-serializable list."""
    return [
        {"function": logical_id(name), "models": [_document(m) for m in function_models(project, function)]}
        for name in names
        if name != CATALOGUE
        for function in [project.functions[name]]
    ]


def _document(model: Model) -> dict[str, Any]:
    return {
        "place": model.place,
        "model": model.name,
        "door": model.route.door if model.route is not None else None,
        "reason": model.reason or None,
        "region": model.region,
        "has_price": model.is_priced,
        "needs_litellm": model.needs_litellm,
    }


def models_text(functions: list[dict[str, Any]]) -> list[str]:
    """Return the same as lines of text."""
    lines = []
    for function in functions:
        lines += ["", f"{function['function']}: models"]
        lines += [f"  {_line(model)}" for model in function["models"]]
    return lines[1:]


def _line(model: dict[str, Any]) -> str:
    parts = [model["model"]]
    if model["door"] is not None:
        parts.append(f"door {model['door']}: {model['reason']}")
        parts.append(f"in {model['region'] or 'the Region of the function'}")
    parts.append("price known" if model["has_price"] else "PRICE UNKNOWN: cost_usd is null; set price or daily_tokens")
    parts.append("needs LiteLLM" if model["needs_litellm"] else "without LiteLLM")
    return f"{model['place']}: {'; '.join(parts)}"
