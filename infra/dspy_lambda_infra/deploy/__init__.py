"""`dspy-lambda deploy`: everything that can be known before anything is touched, on one page; then `sam deploy`."""
