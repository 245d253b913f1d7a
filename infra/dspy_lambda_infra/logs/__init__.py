"""`dspy-lambda logs`: calls and totals from log lines."""
