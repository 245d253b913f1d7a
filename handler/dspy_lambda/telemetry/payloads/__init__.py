"""What is written of inputs, answers and exception texts, by `telemetry.payloads`."""
