"""One log record per program call, and EMF metrics per invocation: exact per call, nothing shared between calls."""

from handler.telemetry.calls import Call
from handler.telemetry.invocation import Invocation
from handler.telemetry.telemetry import Telemetry

__all__ = ["Call", "Invocation", "Telemetry"]
