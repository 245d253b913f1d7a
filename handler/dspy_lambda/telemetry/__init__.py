"""One log record per program call, and EMF metrics per invocation: exact per call, nothing shared between calls."""

from dspy_lambda.telemetry.calls import Call
from dspy_lambda.telemetry.invocation import Invocation
from dspy_lambda.telemetry.telemetry import Telemetry

__all__ = ["Call", "Invocation", "Telemetry"]
