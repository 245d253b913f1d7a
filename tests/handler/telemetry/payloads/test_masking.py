"""The rules of `masked`: names at any depth, patterns, SecretStr, the hook, and what credentials look like."""

import dataclasses
import datetime
import enum
import json
import re

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr

from dspy_lambda.telemetry.payloads.hidden import Hidden
from dspy_lambda.telemetry.payloads.masking import Masks, is_secret_name

SECRET = 'planted "secret" 4711'


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")

    password: object = None
    inner: object = None


@dataclasses.dataclass
class Data:
    api_key: object = None
    inner: object = None


class Color(enum.Enum):
    RED = "red"


def plain(value, **options):
    return Masks(**options).fields(value, Hidden()).value


@pytest.mark.parametrize("name", [
    "password", "PASSWORD", "db_password", "userPassword", "api_key", "x-api-key", "apiKey", "Authorization",
    "Set-Cookie",
    "access_token", "token", "client_secret", "ssn", "SSN",
])  # fmt: skip
def test_names_of_secrets_are_masked_by_default(name):
    assert is_secret_name(name)
    assert plain({name: "x"}) == {name: "***"}


@pytest.mark.parametrize("name", ["max_tokens", "question", "passage", "secretary", "pin", "keys", "author"])
def test_similar_names_are_not(name):
    assert plain({name: "x"}) == {name: "x"}


def test_a_name_of_ones_own_is_masked_as_a_whole_in_any_case():
    value = {"Patient-Name": "a", "patient_name": "b", "patient_name_2": "c"}
    assert plain(value, names=["patient_name"]) == {"Patient-Name": "***", "patient_name": "***", "patient_name_2": "c"}


def test_models_dataclasses_dicts_lists_and_predictions_are_read():
    value = dspy.Prediction(a=[Model(password="x", inner=Data("x", ({"token": 7},)), session_token="x")])
    assert plain(value) == {
        "a": [
            {
                "password": "***",
                "inner": {"api_key": "***", "inner": [{"token": "***"}]},
                "session_token": "***",
            }
        ]
    }


@pytest.mark.parametrize("masks_secrets", [True, False])
def test_secret_types_are_always_masked(masks_secrets):
    hidden = Hidden()
    value = {"a": SecretStr("one-secret"), "b": [SecretBytes(b"two-secret")]}
    assert Masks(masks_secrets=masks_secrets).fields(value, hidden).value == {"a": "***", "b": ["***"]}
    assert hidden.remove_from("one-secret two-secret") == "*** ***"


def test_without_default_names_only_credentials_are_masked():
    value = {"password": "x", "Authorization": "x", "x-api-key": "x"}
    assert plain(value, masks_secrets=False) == {"password": "x", "Authorization": "***", "x-api-key": "***"}


def test_an_object_without_visible_fields_is_written_by_its_class():
    class Client:
        def __str__(self):
            raise AssertionError

    assert plain([Client(), b"123", Color.RED, datetime.date(2026, 1, 2), float("nan"), 10**5000]) == [
        "(Client)", "(3 bytes)", "red", "2026-01-02", "float", "int",
    ]  # fmt: skip


def test_a_cycle_ends_and_makes_texts_unsafe():
    value = {}
    value["a"] = value
    hidden = Hidden()
    assert "..." in json.dumps(Masks().fields(value, hidden).value)
    assert hidden.unsafe


def test_very_many_values_are_cut_and_make_texts_unsafe():
    hidden = Hidden()
    assert len(Masks().fields({"a": list(range(100_000))}, hidden).value["a"]) <= 10_000
    assert hidden.unsafe


def test_the_hook_chooses_what_is_written_and_what_it_replaces_is_hidden():
    hidden = Hidden()
    masks = Masks(hook=lambda name, value: value[:1] + "..." if name == "email" else value)
    assert masks.fields({"email": "me@example.com", "n": [{"email": "you@example.com"}]}, hidden).value == {
        "email": "m...",
        "n": [{"email": "y..."}],
    }
    assert hidden.remove_from("mail me@example.com or you@example.com") == "mail *** or ***"


def test_what_the_hook_returns_is_masked_too():
    assert plain({"a": 1}, hook=lambda name, value: {"password": "x"} if name == "a" else value) == {
        "a": {"password": "***"}
    }


def test_a_value_whose_hook_fails_is_masked():
    def fail(name, value):
        raise ValueError(value)

    hidden = Hidden()
    masking = Masks(hook=fail).fields({"a": "something"}, hidden)
    assert masking.value == {"a": "***"}
    assert isinstance(masking.hook_error, ValueError)
    assert hidden.remove_from("something else") == "*** else"


def test_patterns_are_applied_to_texts():
    assert Masks(patterns=[re.compile(r"\d{3}-\d{2}")]).text("n 123-45 x 1-2") == "n *** x 1-2"


@pytest.mark.parametrize("masks_secrets", [True, False])
@pytest.mark.parametrize("text", [
    "Bearer abcdefgh.ijk", "bearer abcdefgh", "Basic dXNlcjpwdw==", "http://me:abcdefgh@host/",
    "Authorization: abcdefgh",
    "-----BEGIN RSA PRIVATE KEY-----\nabcdefgh\n-----END RSA PRIVATE KEY-----",
])  # fmt: skip
def test_what_looks_like_a_credential_is_never_written(text, masks_secrets):
    shown = Masks(masks_secrets=masks_secrets).text(f"see {text} there")
    assert "abcdefgh" not in shown
    assert "dXNlc" not in shown


@pytest.mark.parametrize("key", ["sk-" + "a1B2" * 12, "AKIAABCD1234EFGH5678", "ghp_" + "a1" * 20])
def test_keys_of_known_shapes_are_never_written(key):
    assert key not in Masks(masks_secrets=False).text(f"see {key} there")


def nested(leaf):
    """Values with the leaf under a masked name at some depth."""
    other = st.none() | st.booleans() | st.integers(-999, 999) | st.text(max_size=5)
    name = st.sampled_from(["password", "Api-Key", "sessionToken", "my_secret"])
    held = (
        st.just(leaf)
        | st.lists(st.just(leaf), min_size=1, max_size=2)
        | st.just({"x": leaf})
        | st.just(SecretStr(leaf))
    )
    at_name = st.builds(
        lambda name, value, more: {**more, name: value}, name, held, st.dictionaries(st.text(max_size=3), other)
    )
    start = (
        at_name
        | st.builds(lambda value: Model(password=value), held)
        | st.builds(lambda value: Data(api_key=value), held)
    )
    return st.recursive(
        start,
        lambda inner: (
            st.builds(lambda value, more: [*more, value], inner, st.lists(other, max_size=2))
            | st.dictionaries(st.text(max_size=5), inner, min_size=1, max_size=3)
            | st.builds(lambda value: Model(inner=value), inner)
            | st.builds(lambda value: Data(inner=value), inner)
            | st.builds(lambda value: dspy.Prediction(inner=value), inner)
        ),
        max_leaves=5,
    )


@given(nested(SECRET))
def test_a_secret_under_a_masked_name_never_appears(value):
    hidden = Hidden()
    shown = json.dumps(Masks().fields({"inputs": value}, hidden).value)
    assert "planted" not in shown
    assert "4711" not in shown
    text = hidden.remove_from(f"{value!r} {SECRET!r} {json.dumps(SECRET)} {SECRET}")
    assert "planted" not in text
    assert "4711" not in text


@pytest.mark.parametrize(
    "name",
    [
        "\uff50assword",
        "pass\u200bword",
        "password[0]",
        "passwords",
        "api_keys",
        "x:api:key",
        "password2",
        "user.pin_code",
    ],
)
def test_other_spellings_of_secret_names(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["tokens", "max_tokens", "output_tokens2", "passage", "secretary"])
def test_names_that_only_look_alike(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    ["**password**: open-sesame", '<password lang="en">open-sesame</password>', "<a:password>open-sesame</a:password>"],
)
def test_sections_in_markdown_and_xml(text):
    assert "sesame" not in Masks().text(text)
