"""Write one log record per program call, and EMF metrics per invocation; calls share no telemetry state."""
