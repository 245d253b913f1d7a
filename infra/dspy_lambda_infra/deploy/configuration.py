"""Compares `dspy.config.yaml`, which is part of every artifact, with the deployed one."""

from __future__ import annotations

from typing import Any

_EFFECT = "restarts the environments of every function"


def configuration_changes(deployed: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line per key whose value would change, and what that restarts; empty if there is none."""
    before, after = _flat(deployed), _flat(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            lines.append(f"- {key}: was {before[key]}")
        elif key not in before:
            lines.append(f"+ {key}: {after[key]}")
        elif before[key] != after[key]:
            lines.append(f"~ {key}: {before[key]} -> {after[key]}")
    return [*lines, _EFFECT] if lines else []


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaf values by dotted key."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found
