"""What a deployment would change in a stack, resource by resource, told from the two translated templates."""

from __future__ import annotations

from collections import Counter
from typing import Any

# They change with every build or every other change, and say nothing by themselves.
_NOISE = ("Metadata",)


def changes(deployed: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
    """One line for each resource that would be added, changed or removed; empty if none would.

    Code is not compared: what `sam build` makes has its place in S3 only at deployment.
    """
    if deployed is None:
        kinds = Counter(resource["Type"] for resource in new["Resources"].values())
        return [f"+ {count:>3} {kind}" for kind, count in sorted(kinds.items())]
    before, after = _named(deployed), _named(new)
    lines = [f"+ {name} ({after[name]['Type']})" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        if paths := _differing(before[name], after[name]):
            lines.append(f"~ {name}: {', '.join(paths)}")
    for name in sorted(before.keys() - after.keys()):
        is_kept = str(before[name].get("DeletionPolicy")).startswith("Retain")
        fate = "stays, outside the stack" if is_kept else "DELETED"
        lines.append(f"- {name} ({before[name]['Type']}): {fate}")
    return lines


def _named(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Resources by logical id; a deployment of the API, whose id is a digest of it, by its kind."""
    found = {}
    for name, resource in template["Resources"].items():
        deployment = resource["Type"].endswith(("::Deployment", "Lambda::Version"))
        kept = {key: value for key, value in resource.items() if key not in _NOISE}
        found[resource["Type"].rpartition("::")[2] if deployment else name] = _plain(kept)
    return found


def _plain(value: Any) -> Any:
    """Intrinsics in one form, code left out."""
    if isinstance(value, dict):
        if set(value) == {"Fn::GetAtt"} and isinstance(value["Fn::GetAtt"], str):
            return {"Fn::GetAtt": value["Fn::GetAtt"].split(".", 1)}
        return {key: _plain(item) for key, item in value.items() if key not in ("Code", "DeploymentId")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    if before["Type"].endswith(("::Deployment", "Lambda::Version")):
        return []
    old, new = before.get("Properties", {}), after.get("Properties", {})
    paths = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    paths += [key for key in sorted({*before, *after} - {"Properties"}) if before.get(key) != after.get(key)]
    return paths
