import json

import pytest

from dspy_lambda_infra.local.answer import exit_answer


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (129, "exit status 129"),
        (255, "exit status 255"),
        (137, "signal: killed"),
        (-9, "signal: killed"),
        (139, "signal: segmentation fault"),
        (-6, "signal: aborted"),
        (-1, "signal: hangup"),
    ],
)
def test_a_process_exit_is_reported_in_lambdas_words(status, end):
    answer = exit_answer(status, "the-id")
    assert answer.error == "Runtime.ExitError"
    assert json.loads(answer.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: the-id Error: Runtime exited with error: {end}",
        "requestId": "the-id",
    }


def test_a_failed_init_error_has_no_request_id():
    assert exit_answer(1).message == "Error: Runtime exited with error: exit status 1"
