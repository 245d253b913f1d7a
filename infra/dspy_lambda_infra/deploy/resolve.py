"""Resolves a translated template's parameters and conditions, so that two templates can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NO_VALUE = {"Ref": "AWS::NoValue"}


def resolve(template: dict[str, Any], parameters: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the resources that exist with these parameters, by logical id.

    References to parameters become values, `Fn::If` the chosen branch. What only a deployment knows (references to
    resources, pseudo parameters, values hidden by NoEcho) stays unchanged.

    Args:
        parameters: values that override the template's defaults.
    """
    declared = template.get("Parameters") or {}
    known = {name: str(entry["Default"]) for name, entry in declared.items() if "Default" in entry}
    known |= {name: value for name, value in parameters.items() if name in declared}
    work = _Resolver(known, template.get("Conditions") or {})
    kept = {
        name: resource
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or work.condition(resource["Condition"])
    }
    return {name: work.value({k: v for k, v in r.items() if k != "Condition"}) for name, r in kept.items()}


class _Resolver:
    def __init__(self, parameters: Mapping[str, str], conditions: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._conditions = conditions

    def condition(self, name: str) -> bool:
        return bool(self._test(self._conditions.get(name)))

    def _test(self, expression: Any) -> Any:
        match expression:
            case {"Condition": str(name)}:
                return self.condition(name)
            case {"Fn::Equals": [left, right]}:
                return self.value(left) == self.value(right)
            case {"Fn::Not": [one]}:
                return not self._test(one)
            case {"Fn::And": list(several)}:
                return all(self._test(one) for one in several)
            case {"Fn::Or": list(several)}:
                return any(self._test(one) for one in several)
        return False

    def value(self, value: Any) -> Any:
        match value:
            case {"Ref": str(name)} if len(value) == 1:
                return self._parameters.get(name, value)
            case {"Fn::If": [name, then, otherwise]}:
                return self.value(then if self.condition(name) else otherwise)
            case {"Fn::Sub": str(text)}:
                return self._sub(text)
            case {"Fn::GetAtt": str(attribute)}:
                return {"Fn::GetAtt": attribute.split(".", 1)}
            case dict():
                resolved = {key: self.value(item) for key, item in value.items()}
                return {key: item for key, item in resolved.items() if item != _NO_VALUE}
            case list():
                return [item for item in map(self.value, value) if item != _NO_VALUE]
        return value

    def _sub(self, text: str) -> Any:
        replaced = re.sub(r"\$\{(\w+)}", lambda found: self._parameters.get(found[1], found[0]), text)
        return {"Fn::Sub": replaced} if "${" in replaced else replaced
