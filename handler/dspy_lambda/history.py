"""Count each answered LM call for its program call, and keep it in that call's own histories."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_lambda.call import Call, call_of, usage_of
from dspy_lambda.models.prices import apply_price
from dspy_lambda.telemetry.traces.spans import note


class CallHistory(list[dict[str, Any]]):
    """The `history` of an LM or a module that belongs to one call, and is discarded with it.

    DSPy appends to the history of every LM and module and to a global one, which calls share and which outlive them.
    Here entries go only to a CallHistory of the same call: a program may keep its LM for later calls.
    """

    __slots__ = ("call",)

    def __init__(self, call: Call | None) -> None:
        super().__init__()
        self.call = call


def record(lm: Any, entry: dict[str, Any]) -> None:
    """Count one answered LM call, and keep its entry in the call's histories.

    Replaces DSPy's `record_history` for every LM of this process.
    """
    apply_price(lm, entry)
    if (usage := usage_of(lm)) is not None:
        note(usage.add(entry))
    call = call_of(lm)
    if isinstance(call, Call) and not call.settled:
        _keep(call, lm, entry)


def _keep(call: Call, lm: Any, entry: dict[str, Any]) -> None:
    settings = dspy.settings
    most = 0 if settings.disable_history else settings.max_history_size
    for owner in (lm, *(settings.caller_modules or ())):
        history = getattr(owner, "history", None)
        if type(history) is CallHistory and history.call is call:
            history.append(entry)
            if len(history) > most:
                del history[: len(history) - most]
