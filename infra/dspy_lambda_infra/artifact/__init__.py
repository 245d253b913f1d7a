"""Builds a function's zip or image: locked, resolved for the target, pruned, precompiled, reproducible."""
