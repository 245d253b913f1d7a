"""`dspy-lambda doctor`: shows where the time goes."""
