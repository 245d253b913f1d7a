"""`template.extra.yaml`: the user's additions, merged into the generated template so that they survive regeneration."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import yaml

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.project import Project
from dspy_lambda_infra.template.syntax import LOOP, is_intrinsic, load
from dspy_lambda_infra.texts import texts

EXTRA_FILE = "template.extra.yaml"


def merge_extra(template: dict[str, Any], project: Project) -> dict[str, Any]:
    """Merge the project's `template.extra.yaml`, if there is one, into the template.

    Merges mappings deeply, appends lists, removes keys set to null, and replaces everything else.

    Raises:
        ConfigError: the file is not a YAML mapping, has a section that templates do not have, a loop, or a resource
            without a type.
    """
    merged: dict[str, Any] = merge(template, read_extra(project))
    for name, resource in merged["Resources"].items():
        if name != "Fn::Transform" and not _is_resource(resource):
            nearest = get_close_matches(str(name), template["Resources"], n=1)
            raise ConfigError(
                f"{project.root / EXTRA_FILE}: Resources.{name}: must be a mapping with a Type, and with Properties "
                f"that are a mapping{f'; did you mean {nearest[0]}?' if nearest and nearest[0] != name else '.'}"
            )
    return merged


def _is_resource(value: Any) -> bool:
    return isinstance(value, dict) and "Type" in value and isinstance(value.get("Properties", {}), dict)


def read_extra(project: Project) -> dict[str, Any]:
    """Read the project's `template.extra.yaml`; empty if there is none.

    Raises:
        ConfigError: the file is not a YAML mapping, or has a section that templates do not have, or a loop.
    """
    path = project.root / EXTRA_FILE
    if not path.is_file():
        return {}
    try:
        extra = load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if extra is None:
        return {}
    sections = ("Parameters", "Mappings", "Conditions", "Globals", "Resources", "Outputs", "Metadata", "Rules")
    if not isinstance(extra, dict) or not set(extra) <= set(sections):
        raise ConfigError(f"{path}: must be a mapping of template sections: {', '.join(sections)}.")
    for section, value in extra.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {section}: must be a mapping; leave it out if it adds nothing.")
    if loop := next((place for place, text in texts(extra) if text.startswith(LOOP)), None):
        raise ConfigError(
            f"{path}: {'.'.join(loop)}: loops need the transform AWS::LanguageExtensions, which the template does not "
            "have; write each of what it would make."
        )
    return extra


def merge(base: Any, over: Any) -> Any:
    """Merge mappings deeply, append lists, remove keys set to null, replace everything else (including intrinsics)."""
    if is_intrinsic(base) or is_intrinsic(over):
        return over
    if isinstance(base, dict) and isinstance(over, dict):
        merged = {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
        return {key: value for key, value in merged.items() if value is not None or key not in over}
    if isinstance(base, list) and isinstance(over, list):
        return base + over
    return over
