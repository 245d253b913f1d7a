"""Why lines or spans cannot be read."""

from __future__ import annotations


class Unavailable(Exception):
    """A source of lines or spans cannot be read; the text says why and what to do."""
