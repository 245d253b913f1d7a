import json

import pytest

from dspy_lambda_infra.local.mapping import failed_identifiers
from dspy_lambda_infra.local.queues import QueueServer

SENT = {"a", "b"}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({}, set()),
        (None, set()),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, SENT),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, SENT),
        ({"batchItemFailures": [{"itemIdentifier": "c"}]}, SENT),
        ({"batchItemFailures": [{"id": "a"}]}, SENT),
        ({"batchItemFailures": ["a"]}, SENT),
        ([1], SENT),
        ("text", SENT),
    ],
)
def test_an_answer_fails_the_records_that_lambda_would_fail(answer, failed):
    assert failed_identifiers(json.dumps(answer).encode(), SENT) == failed


def test_an_answer_that_is_no_json_fails_all():
    assert failed_identifiers(b"oops", SENT) == SENT


def test_the_queues_server_asks_for_no_profile_of_the_developers(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "none-of-that-name")
    server = QueueServer()
    server.start()
    server.stop()
