"""Each answered LM call: counted for the program call that asked, and kept in that call's own histories."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_lambda.call import Call, call_of, usage_of
from dspy_lambda.dspy_patches import receive_history


class CallHistory(list[dict[str, Any]]):
    """What `history` of an LM or a module is that one call has for itself: it is gone with the call.

    DSPy adds to every LM's, every module's and a global list. Those outlive calls and are shared by them, so that
    nothing is added to a list of any other kind, nor to one of another call: a program may keep its LM.
    """

    __slots__ = ("call",)

    def __init__(self, call: Call | None) -> None:
        super().__init__()
        self.call = call


def install() -> None:
    """Take the place of DSPy's own record of LM calls, for every LM of this process."""
    receive_history(record)


def record(lm: Any, entry: dict[str, Any]) -> None:
    """Count one answered LM call, and keep its entry where the call may read it."""
    if (usage := usage_of(lm)) is not None:
        usage.add(entry)
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
