"""Prints a command's results to standard output: text for people, or one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def report(text: str, document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the text, or the document as JSON."""
    print(json.dumps(document, indent=2, ensure_ascii=False) if as_json else text)
