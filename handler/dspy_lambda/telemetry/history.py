"""Each answered LM call: counted for the program call that asked, and kept in that call's own histories."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_lambda.dspy_patches import receive_history
from dspy_lambda.telemetry.calls import Call, call_of, usage_of


class CallHistory(list[dict[str, Any]]):
    """What `history` of an LM or a module is that one call has for itself: it is gone with the call.

    DSPy adds to every LM's, every module's and a global list. Those outlive calls and are shared by them, so that
    nothing is added to a list of any other kind, nor to one of another call: a program may keep its LM.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Call | None) -> None:
        super().__init__()
        self._call = call

    def belongs_to(self, call: Call) -> bool:
        return self._call is call


def install() -> None:
    """Take the place of DSPy's own record of LM calls, for every LM of this process."""
    receive_history(record)


def record(lm: Any, entry: dict[str, Any]) -> None:
    """Count one answered LM call, and keep its entry where the call may read it."""
    if (usage := usage_of(lm)) is not None:
        usage.add(entry)
    call = call_of(lm)
    settings = dspy.settings
    if call is None or call.settled or settings.disable_history:
        return
    for owner in (lm, *(settings.caller_modules or ())):
        history = getattr(owner, "history", None)
        if type(history) is CallHistory and history.belongs_to(call):
            history.append(entry)
            del history[: -settings.max_history_size or None]  # all of it where that is 0
