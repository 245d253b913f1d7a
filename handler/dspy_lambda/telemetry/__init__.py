"""One log record per program call, and EMF metrics per invocation: exact per call, nothing shared between calls."""
