"""Patterns that may need exponential time."""

import pytest

from dspy_lambda.config.patterns import repeats_a_repeat


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(\w+\s?)*x", r"((a|b)*c?)*", r"(?:(?:x{1,99})*y)+", r"(a|b+)*"])
def test_a_repeat_within_a_repeat_is_found(pattern):
    assert repeats_a_repeat(pattern)


@pytest.mark.parametrize("pattern", [
    r"[0-9]{3}-[0-9]{2}-[0-9]{4}", r"(\d{1,3}\.){3}\d{1,3}", r"[\w.]+@[\w.]+", r"(a|b)+c*", r"(a++)+",
])  # fmt: skip
def test_usual_patterns_are_accepted(pattern):
    assert not repeats_a_repeat(pattern)
