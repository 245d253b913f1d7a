"""DSPy's adapters by their names in the config."""

from __future__ import annotations

import functools

import dspy

from dspy_lambda.config.schema import AdapterName

_KINDS: dict[AdapterName, type[dspy.Adapter]] = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
}


def adapter_of(name: AdapterName, lm: dspy.LM) -> dspy.Adapter:
    """Return an adapter for one call; with `two_step`, the LM also extracts the outputs from its own answer."""
    return dspy.TwoStepAdapter(lm) if name == "two_step" else _shared(name)


@functools.cache
def _shared(name: AdapterName) -> dspy.Adapter:
    """Return an adapter that all calls share: it has no state."""
    return _KINDS[name]()
