"""CloudFormation's intrinsic functions as mappings in long form, and templates as YAML."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import yaml
from samtranslator.yaml_helper import yaml_parse

Intrinsic = dict[str, Any]  # has one key: `Ref` or `Fn::...`
LOOP = "Fn::ForEach"


def ref(name: str) -> Intrinsic:
    """Ref"""
    return {"Ref": name}


def get_att(name: str) -> Intrinsic:
    """Fn::GetAtt, from `Resource.Attribute`."""
    return {"Fn::GetAtt": name.split(".", 1)}


def sub(text: str) -> Intrinsic:
    """Fn::Sub"""
    return {"Fn::Sub": text}


def if_(condition: str, then: Any, otherwise: Any = None) -> Intrinsic:
    """Fn::If; without `otherwise`, the property is absent if the condition is false."""
    return {"Fn::If": [condition, then, ref("AWS::NoValue") if otherwise is None else otherwise]}


def is_intrinsic(value: Any) -> bool:
    """Whether a value is an intrinsic function and not an ordinary mapping."""
    # Not `Condition`: resources also have a key of that name.
    return isinstance(value, dict) and len(value) == 1 and all(_computes(str(key)) for key in value)


def _computes(key: str) -> bool:
    """Whether a key's value replaces its mapping; `Fn::Transform` and `Fn::ForEach` add to what is beside them.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-transform.html
    """
    return key == "Ref" or (key.startswith("Fn::") and not key.startswith(("Fn::Transform", LOOP)))


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, which CloudFormation rejects, and indents lists: `yaml.safe_dump` has options for neither."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


# What one YAML reads as a text and another as a number or a switch: 012345678901, 1e3, y. https://yaml.org/type/
_AMBIGUOUS = re.compile(r"[+-]?\.?\d.*|[yYnN]")


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    style = "|" if "\n" in data else "'" if _AMBIGUOUS.fullmatch(data) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(template: dict[str, Any]) -> str:
    """Return a template as text; the same template always gives the same bytes."""
    return yaml.dump(template, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def load(text: str) -> Any:
    """Parse a template's text into dicts, lists and scalars; short-form intrinsics (`!Ref`) become long-form.

    Raises:
        yaml.YAMLError: the text is not valid YAML.
    """
    return _without_dates(yaml_parse(text))


def _without_dates(value: Any) -> Any:
    """Return a value with its dates as text: a policy's unquoted `Version: 2012-10-17` is a date in YAML."""
    if isinstance(value, dict):
        return {key: _without_dates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_dates(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value
