"""Images, audio, files and histories are written by their media type and size."""

import base64
import json

import dspy
import pytest

from dspy_lambda.telemetry.payloads.hidden import Hidden
from dspy_lambda.telemetry.payloads.masking import Masks
from dspy_lambda.telemetry.payloads.media import without_base64, without_uris

DATA = base64.b64encode(bytes(range(256)) * 4).decode()
PNG = f"data:image/png;base64,{DATA}"
TURNS = [{"question": "private", "answer": "ü"}]


@pytest.mark.parametrize(("value", "shown"), [
    (dspy.Image(PNG), {"media_type": "image/png", "bytes": 1026}),
    (dspy.Image("https://example.com/a.png"), {"url": "https://example.com/a.png"}),
    (dspy.File(file_data=f"data:application/pdf;base64,{DATA}"), {"media_type": "application/pdf", "bytes": 1026}),
    (dspy.Audio(data=DATA, audio_format="wav"), {"media_type": "audio/wav", "bytes": 1026}),
    (dspy.History(messages=TURNS), {"messages": 1, "bytes": 9}),
    ({"messages": TURNS}, {"messages": 1, "bytes": 9}),
    ({"data": DATA, "format": "wav"}, {"media_type": "audio/wav", "bytes": 1026}),
])  # fmt: skip
def test_only_type_and_size_are_shown(value, shown):
    assert Masks().fields({"a": value}, Hidden()).value == {"a": shown}


def test_a_programs_own_field_called_messages_is_kept():
    assert Masks().fields({"messages": TURNS}, Hidden()).value == {"messages": TURNS}


def test_encoded_data_within_texts_is_replaced():
    assert without_uris(f"see {PNG}, and data: of others") == "see (image/png, 1,026 bytes), and data: of others"
    assert without_base64(json.dumps({"data": DATA})) == '{"data": "(base64, 1,026 bytes)"}'
    assert without_base64("a word " * 100) == "a word " * 100
