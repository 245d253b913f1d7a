"""The result of an invocation."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """An invocation's result: the function's payload, or the error's, with its type in `error`."""

    payload: bytes
    error: str | None = None

    @property
    def message(self) -> str:
        """Return an error's text."""
        try:
            return str(json.loads(self.payload)["errorMessage"])
        except (ValueError, KeyError, TypeError):
            return ""


def error_answer(kind: str, message: str, request_id: str = "") -> Answer:
    """Return an error as Lambda itself reports it."""
    payload = {"errorType": kind, "errorMessage": message, "requestId": request_id}
    return Answer(json.dumps(payload).encode(), kind)


# Signals that end a process from outside or by a fault. Within a namespace, the status comes from a shell, which
# reports 128 + n for signal n; a program may exit with such a status itself, so 129, for example, is an exit status.
_SIGNALS = (
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGTERM,
)


def exit_answer(status: int, request_id: str = "") -> Answer:
    """Return the answer for a process that has exited, in Lambda's words: "signal: killed" if it ran out of memory."""
    number = -status if status < 0 else status - 128
    killed = status < 0 or number in _SIGNALS
    end = f"signal: {(signal.strsignal(number) or str(number)).lower()}" if killed else f"exit status {status}"
    begin = f"RequestId: {request_id} " if request_id else ""
    return error_answer("Runtime.ExitError", f"{begin}Error: Runtime exited with error: {end}", request_id)
