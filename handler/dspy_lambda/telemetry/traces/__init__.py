"""The spans of an invocation: made while it runs, kept or dropped when it ends."""
