"""Patterns that may need exponential time."""

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda.telemetry.payloads.patterns import check_patterns


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(\w+\s?)*x", r"((a|b)*c?)*", r"(?:(?:x{1,99})*y)+", r"(a|b+)*"])
def test_a_repeat_within_a_repeat_is_refused(pattern):
    with pytest.raises(ConfigError, match=r"^telemetry\.mask: /.*/ repeats a repeat"):
        check_patterns(["name", f"/{pattern}/"])


@pytest.mark.parametrize("pattern", [
    r"[0-9]{3}-[0-9]{2}-[0-9]{4}", r"(\d{1,3}\.){3}\d{1,3}", r"[\w.]+@[\w.]+", r"(a|b)+c*", r"(a++)+",
])  # fmt: skip
def test_usual_patterns_are_accepted(pattern):
    check_patterns(["name", f"/{pattern}/"])
