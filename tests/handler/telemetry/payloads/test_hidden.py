"""Values of masked fields in texts."""

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.telemetry.payloads.hidden import Hidden

VALUE = 'two "words"\nand a \\ für & <x>'


def hiding(*values):
    hidden = Hidden()
    for value in values:
        hidden.add(value)
    return hidden


@pytest.mark.parametrize("written", [
    str, repr, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), lambda text: json.dumps(json.dumps(text)),
    quote, quote_plus, lambda text: quote(text, safe=""), lambda text: f"  {text}  ".replace("\n", "\n      "),
])  # fmt: skip
def test_a_value_is_replaced_in_every_notation(written):
    text = hiding(VALUE).remove_from(f"before {written(VALUE)} after")
    assert not any(word in text for word in ("two", "words", "and a", "<x>"))
    assert text.startswith("before ")
    assert text.endswith(" after")


@pytest.mark.parametrize(
    "text", ["x 0123456789abcdef y", "x 01234567...", "...89abcdef y", "x 0123456789a", "9abcdefx89abcdef"]
)
def test_the_beginning_or_the_end_of_a_value_that_a_quotation_cut_is_replaced(text):
    shown = hiding("0123456789abcdef").remove_from(text)
    assert "01234567" not in shown
    assert "89abcdef" not in shown


def test_a_value_that_begins_like_another_does_not_expose_the_rest():
    assert hiding("abcd", "abcdefgh").remove_from("abcdefgh abcd") == "*** ***"


@pytest.mark.parametrize("value", ["x", "abc", " abc "])
def test_a_short_value_makes_texts_unsafe(value):
    assert hiding(value).unsafe


@pytest.mark.parametrize("value", ["", "  ", "abcd"])
def test_an_empty_or_long_enough_value_does_not(value):
    assert not hiding(value).unsafe


def test_too_many_values_make_texts_unsafe():
    assert not hiding(*map(str, range(1000, 1999))).too_many
    hidden = hiding(*map(str, range(1000, 2100)))
    assert hidden.unsafe
    assert hidden.too_many


@given(st.text(min_size=4).filter(lambda text: len(text.strip()) >= 4), st.text(), st.text())
def test_no_value_remains(value, before, after):
    shown = hiding(value).remove_from(before + value + after)
    assert value.strip() not in shown or value.strip() in "***"
