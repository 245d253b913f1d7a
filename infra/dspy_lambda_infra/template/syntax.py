"""CloudFormation's YAML: short-form intrinsics read and written, everything else plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Intrinsic:
    """A short-form intrinsic such as `!GetAtt Queue.Arn`; `value` is what stands behind the tag."""

    tag: str
    value: Any


def ref(name: str) -> Intrinsic:
    """!Ref"""
    return Intrinsic("!Ref", name)


def get_att(name: str) -> Intrinsic:
    """!GetAtt"""
    return Intrinsic("!GetAtt", name)


def sub(text: str) -> Intrinsic:
    """!Sub"""
    return Intrinsic("!Sub", text)


def if_(condition: str, then: Any, otherwise: Any = None) -> Intrinsic:
    """!If; without `otherwise` the property is not there."""
    return Intrinsic("!If", [condition, then, ref("AWS::NoValue") if otherwise is None else otherwise])


class _Dumper(yaml.SafeDumper):
    """Two spaces, no aliases, lists indented under their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


class _Loader(yaml.SafeLoader):
    """Keeps what it does not know as an Intrinsic."""


def _represent(dumper: yaml.SafeDumper, data: Intrinsic) -> yaml.Node:
    if isinstance(data.value, list):
        return dumper.represent_sequence(data.tag, data.value)
    if isinstance(data.value, dict):
        return dumper.represent_mapping(data.tag, data.value)
    return dumper.represent_scalar(data.tag, str(data.value))


def _construct(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Intrinsic:
    tag = f"!{suffix}"
    if isinstance(node, yaml.SequenceNode):
        return Intrinsic(tag, loader.construct_sequence(node, deep=True))
    if isinstance(node, yaml.MappingNode):
        return Intrinsic(tag, loader.construct_mapping(node, deep=True))
    return Intrinsic(tag, node.value)


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(Intrinsic, _represent)
_Dumper.add_representer(str, _represent_text)
_Loader.add_multi_constructor("!", _construct)


def dump(template: dict[str, Any]) -> str:
    """A template as text; the same template always gives the same bytes."""
    return yaml.dump(template, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def plain(value: Any) -> Any:
    """A template's value with its intrinsics in their long form, as mappings."""
    if isinstance(value, Intrinsic):
        name = value.tag.removeprefix("!")
        inner = value.value.split(".", 1) if name == "GetAtt" else plain(value.value)
        return {name if name in ("Ref", "Condition") else f"Fn::{name}": inner}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def load(text: str) -> Any:
    """A template's text as dicts, lists, scalars and Intrinsics.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
