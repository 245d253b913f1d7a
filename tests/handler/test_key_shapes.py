"""tests/infra/artifact/test_key_shapes.py tests the shapes themselves, on a project's files."""

import pytest

from dspy_lambda.key_shapes import is_key_for_name, looks_like_key


@pytest.mark.parametrize("text", ["sk-" + "a1B2" * 12, "the key is AKIA" + "ABCD1234EFGH5678."])
def test_a_key_is_found_within_a_text(text):
    assert looks_like_key(text)


@pytest.mark.parametrize("text", ["", "OPENAI_API_KEY", "sk-learn" + "x" * 30, "a" * 40])
def test_ordinary_words_are_not_keys(text):
    assert not looks_like_key(text)


@pytest.mark.parametrize(
    ("name", "is_key"),
    [("OPENAI_API_KEY", False), ("0123456789abcdef" * 2, True), ("abcdefgh" * 4, False), ("sk-" + "a1" * 20, True)],
)
def test_a_long_word_with_a_digit_instead_of_a_name_is_a_key(name, is_key):
    assert is_key_for_name(name) is is_key
