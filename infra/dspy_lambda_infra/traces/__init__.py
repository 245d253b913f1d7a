"""`dspy-lambda trace`: one call's spans as a waterfall."""
