"""Discover a project's programs, describe them by schemas, and copy them for each call."""
