"""What an invocation ends with."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What an invocation ended with: the function's payload, or the error's with its type in `error`."""

    payload: bytes
    error: str | None = None

    @property
    def message(self) -> str:
        """An error's text."""
        try:
            return str(json.loads(self.payload)["errorMessage"])
        except (ValueError, KeyError, TypeError):
            return ""


def error_answer(kind: str, message: str, request_id: str = "") -> Answer:
    """An error as Lambda itself reports it."""
    payload = {"errorType": kind, "errorMessage": message, "requestId": request_id}
    return Answer(json.dumps(payload).encode(), kind)


# What ends a process from outside or by a fault. Within a namespace the status is that of a shell, which says 128 + n
# for signal n, as a program may itself; 129, say, is an exit status.
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
    """The answer when the process has ended, in the words of Lambda: "signal: killed" when it was out of memory."""
    number = -status if status < 0 else status - 128
    killed = status < 0 or number in _SIGNALS
    end = f"signal: {(signal.strsignal(number) or str(number)).lower()}" if killed else f"exit status {status}"
    begin = f"RequestId: {request_id} " if request_id else ""
    return error_answer("Runtime.ExitError", f"{begin}Error: Runtime exited with error: {end}", request_id)
