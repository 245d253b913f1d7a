"""Values of JSON cut at a maximum size."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.telemetry.payloads.cut import Cut, cut_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=30,
)


def cut(value, limit):
    return Cut(cut_text, limit).cut(value)


@given(values)
def test_a_small_value_stays_as_it_is(value):
    assert cut(value, 10**6) == value


def test_a_long_text_says_how_long_it_was():
    assert cut({"a": "x" * 50, "b": [1, 2]}, 20) == {
        "a": "x" * 15 + "... (cut; 50 characters in all)",
        "...": "(cut; 1 more)",
    }


def test_a_list_says_how_much_is_left_out():
    assert cut(["abcdef"] * 10, 20) == ["abcdef", "abcdef", "(cut; 8 more)"]


@pytest.mark.parametrize("letter", ["x", "ü", "\x00", '"', "\U0001f600"])
@pytest.mark.parametrize("limit", [100, 10_000, 100_000])
def test_the_size_in_json_counts(letter, limit):
    value = {"a": letter * 200_000, "b": [letter * 10] * 100_000}
    assert len(json.dumps(cut(value, limit), ensure_ascii=False).encode()) <= limit + 200
