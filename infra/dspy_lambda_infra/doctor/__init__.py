"""`dspy-lambda doctor`: where the time goes."""
