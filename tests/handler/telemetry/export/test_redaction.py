"""Keys in the texts of spans."""

from __future__ import annotations

from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.export.redaction import Redaction

KEY = "key-of-the-model-4471"


def test_a_key_is_removed_from_then_on_also_from_texts_seen_before():
    exceptions = Exceptions()
    redaction = Redaction(exceptions)
    text = f"search with {KEY}"
    assert redaction(text) == text
    exceptions.redact([KEY])
    assert redaction(text) == "search with (a key)"


def test_what_looks_like_a_key_is_removed():
    assert "abcdefghijkl" not in Redaction(Exceptions())("sk-ant-api03-abcdefghijklmnopqrstuvwxyz")
