"""Write one log record per program call, and EMF metrics per invocation; calls share no telemetry state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Log = Callable[[str, str, dict[str, Any]], None]  # called with level, message and fields
