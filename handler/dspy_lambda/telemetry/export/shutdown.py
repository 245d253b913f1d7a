"""Flush when Lambda ends the environment with SIGTERM, which a registered extension makes it send.

The main thread waits for the next event in C code, where Python runs no signal handler. But Python writes each signal
to the wakeup descriptor at once, and a thread reads it.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

# "500 ms: a function with a registered internal extension"; part of it must be left to end.
FLUSH_SECONDS = 0.3
_BYTE = bytes([signal.SIGTERM])


def flush_at_sigterm(flush: Callable[[], object]) -> None:
    """Call `flush` on SIGTERM, and then end the process, unless another handler was or will be set for it.

    Must be called in the main thread; changes nothing in others.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wake_up(number: int, frame: FrameType | None) -> None:
        # Twice as a rule: here as well, in case a program has set a wakeup descriptor of its own, as asyncio does.
        with suppress(OSError):
            os.write(writing, _BYTE)

    def watch() -> None:
        while True:
            if _BYTE not in os.read(reading, 64):
                continue
            try:
                flush()
            finally:
                if signal.getsignal(signal.SIGTERM) is wake_up:
                    _end()

    former_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if former_descriptor >= 0:
        signal.set_wakeup_fd(former_descriptor)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, wake_up)
    _leave_parent_alone(wake_up, writing)
    threading.Thread(target=watch, name="dspy-lambda-shutdown", daemon=True).start()


def _leave_parent_alone(wake_up: object, writing: int) -> None:
    """Restore the default in forked children, before any signal reaches them.

    A child's signal would be written to the descriptor that it shares with its parent, and end the parent.
    """
    mask = threading.local()

    def block() -> None:
        mask.former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.former)

    def restore() -> None:
        with suppress(ValueError, OSError):
            former = signal.set_wakeup_fd(-1)
            if former not in (writing, -1):
                signal.set_wakeup_fd(former)
            if signal.getsignal(signal.SIGTERM) is wake_up:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)


def _end() -> None:
    """End the process as SIGTERM does by default. `signal.signal` works in the main thread only."""
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).signal(signal.SIGTERM, None)  # SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)
        return
    os._exit(128 + signal.SIGTERM)
