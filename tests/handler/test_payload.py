import json
import math

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import InvalidInput
from handler.payload import MAX_BODY_BYTES, read_json, to_outputs

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_reads_as_the_standard_library_reads_it(value):
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60))
def test_bytes_read_as_json_or_are_refused(body):
    try:
        read_json(body)
    except InvalidInput as error:
        assert error.status in (400, 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b" \n", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"NaN", 400),
        (b"[" * 100_000, 400),
        (b"[" * 500 + b"]" * 500, 400),
        (b"1" * 5000, 400),
        (rb'{"a": "\ud800"}', 422),
        (rb'{"a": "\udc00\ud800"}', 422),
        (rb'{"a": "\ud800A"}', 422),
        (rb'{"a": "\ud800"', 400),
        (rb'{"a": "\u12"}', 400),
        ('{"a": "\ud800"}', 422),
        (b'"' + b"a" * MAX_BODY_BYTES, 413),
    ],
)
def test_what_cannot_be_read_has_its_status(body, status):
    with pytest.raises(InvalidInput) as error:
        read_json(body)
    assert error.value.status == status


def test_text_keeps_nul_and_whole_surrogate_pairs():
    assert read_json(rb'{"a": "\u0000\ud83d\ude00"}') == {"a": "\0😀"}


class Model(pydantic.BaseModel):
    when: float


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (dspy.Prediction(answer="a", score=math.nan), {"answer": "a", "score": None}),
        ({"a": math.inf, "b": (1, 2)}, {"a": None, "b": [1, 2]}),
        (Model(when=1.5), {"when": 1.5}),
        ({"raw": b"\xff"}, {"raw": "_w=="}),
        ("text", {"result": "text"}),
        (None, {"result": None}),
        ([1, Model(when=2)], {"result": [1, {"when": 2.0}]}),
        ({"a": "half \ud800 pair", "\udfff": ["\ud801"]}, {"a": "half \ufffd pair", "\ufffd": ["\ufffd"]}),
    ],
)
def test_results_become_json_objects(result, outputs):
    assert to_outputs(result) == outputs
    json.dumps(outputs, allow_nan=False).encode()
