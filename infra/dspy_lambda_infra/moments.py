"""Reads points in time as people write them: `15m`, `2h`, or an ISO 8601 date and time."""

from __future__ import annotations

import re
import time
from datetime import datetime

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def moment(text: str, now: float | None = None) -> float:
    """Return seconds since the epoch. A time without an offset is local time.

    Args:
        now: what `15m` is counted back from, in seconds since the epoch; None for now.

    Raises:
        ValueError: it is neither.
    """
    if ago := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw])", text.strip()):
        return (time.time() if now is None else now) - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is not a time; write one such as 15m, 2h, 3d, 2026-07-01 or 2026-07-01T12:00:00Z"
        ) from None
