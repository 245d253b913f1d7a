"""`dspy-lambda deploy`: first shows on one page what will change and cost, then runs `sam deploy`."""
