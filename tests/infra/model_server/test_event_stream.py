import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from dspy_lambda_infra.model_server.event_stream import corrupt, event, exception


def read(data):
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_botocore_reads_events_and_exceptions():
    first, second = read(event("messageStart", {"role": "é"}) + exception("throttlingException", {"message": "m"}))
    assert first.headers == {
        ":event-type": "messageStart",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert first.payload.decode() == '{"role":"\\u00e9"}'
    assert second.to_response_dict()["status_code"] == 400
    assert second.headers[":exception-type"] == "throttlingException"


def test_botocore_refuses_a_corrupt_frame():
    with pytest.raises(ChecksumMismatch):
        read(corrupt(event("messageStart", {"role": "assistant"})))
