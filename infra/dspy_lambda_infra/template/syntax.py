"""CloudFormation's intrinsic functions as mappings in long form, and templates as YAML."""

from __future__ import annotations

from typing import Any

import yaml
from samtranslator.yaml_helper import yaml_parse

Intrinsic = dict[str, Any]  # has one key: `Ref` or `Fn::...`


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
    return isinstance(value, dict) and len(value) == 1 and all(key == "Ref" or key.startswith("Fn::") for key in value)


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, which CloudFormation rejects, and indents lists: `yaml.safe_dump` has options for neither."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _represent_text)


def dump(template: dict[str, Any]) -> str:
    """Return a template as text; the same template always gives the same bytes."""
    return yaml.dump(template, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def load(text: str) -> Any:
    """Parse a template's text into dicts, lists and scalars; short-form intrinsics (`!Ref`) become long-form.

    Raises:
        yaml.YAMLError: the text is not valid YAML.
    """
    return yaml_parse(text)
