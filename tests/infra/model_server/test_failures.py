import http.client
import json

import botocore.session
import pytest
from botocore.exceptions import ClientError

from dspy_lambda_infra.model_server.failures import FAILURES, check_name, find_failure
from tests.infra.model_server.conftest import MODEL, ask

SHAPES = botocore.session.get_session().get_service_model("bedrock-runtime").error_shapes
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_exception_of_bedrock_is_read_by_botocore_with_its_status(models, bedrock, shape):
    models.behave(failure=f"{shape.name}: told so")
    client = bedrock()
    for call in (client.converse, client.converse_stream):
        with pytest.raises(getattr(client.exceptions, shape.name)) as error:
            call(**ask())
        assert error.value.response["Error"] == {"Code": shape.name, "Message": "told so"}
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == shape.metadata["error"]["httpStatusCode"]


@pytest.mark.parametrize("name", ["error", "rate_limit", "unauthorized", "context_length"])
def test_general_failures_are_bedrocks_exceptions_on_its_own_wires(models, bedrock, name):
    models.behave(failure=name)
    with pytest.raises(ClientError) as error:
        bedrock().converse(**ask())
    assert error.value.response["Error"] == {"Code": FAILURES[name].aws, "Message": FAILURES[name].message}


def test_retry_after_has_any_number_of_seconds(models, bedrock):
    models.behave(failure="ThrottlingException", retry_after_seconds=3600)
    with pytest.raises(ClientError) as error:
        bedrock().converse(**ask())
    assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3600"


def test_an_exception_in_the_middle_of_a_stream_comes_after_some_events(models, bedrock):
    models.behave(failure="stream:ThrottlingException: slow down")
    seen = []
    with pytest.raises(ClientError, match="slow down") as error:
        seen += [event for event in bedrock().converse_stream(**ask("a b c d"))["stream"] if not seen.append(event)]
    assert error.value.response["Error"]["Code"] == "throttlingException"
    assert [next(iter(event)) for event in seen][:2] == ["messageStart", "contentBlockDelta"]
    assert models.stats()["answered"] == 0


@pytest.mark.parametrize(
    ("path", "marker"),
    [("/v1/chat/completions", b'data: {"error": '), ("/v1/messages", b"event: error\n")],
)
def test_an_error_in_the_middle_of_server_sent_events_is_the_last_event(models, send, path, marker):
    models.behave(failure="stream:error")
    status, _, body = send(path, {**CHAT, "stream": True})
    assert status == 200
    *events, last = body.split(b"\n\n")[:-1]
    assert last.startswith(marker)
    assert len(events) > 2


def test_a_bad_checksum_ends_botocores_stream(models, bedrock):
    models.behave(failure="bad_crc")
    with pytest.raises(Exception, match="Checksum mismatch"):
        list(bedrock().converse_stream(**ask())["stream"])


def test_a_truncated_event_stream_ends_without_its_last_events(models, bedrock):
    models.behave(failure="truncated")
    names = [next(iter(event)) for event in bedrock().converse_stream(**ask("a b c d e f"))["stream"]]
    assert names[0] == "messageStart"
    assert "messageStop" not in names
    assert models.stats()["answered"] == 0


def test_a_cut_answer_closes_the_connection(models, send):
    models.behave(failure="cut")
    with pytest.raises(http.client.IncompleteRead):
        send("/v1/chat/completions", CHAT)
    assert models.stats()["answered"] == 0


@pytest.mark.parametrize(
    ("failure", "status", "kind", "part"),
    [
        ("html", 200, "text/html; charset=utf-8", b"<html>"),
        ("html_error", 502, "text/html; charset=utf-8", b"<html>"),
        ("error_body", 200, "application/json; charset=utf-8", b'"error"'),
    ],
)
def test_answers_that_are_no_answers(models, send, failure, status, kind, part):
    models.behave(failure=failure)
    got, headers, body = send("/v1/chat/completions", CHAT)
    assert (got, headers["Content-Type"]) == (status, kind)
    assert part in body
    assert models.stats()["answered"] == 0


@pytest.mark.parametrize(("failure", "reason"), [("length", "max_tokens"), ("content_filter", "content_filtered")])
def test_an_answer_that_ended_early_names_the_reason(models, bedrock, failure, reason):
    models.behave(failure=failure)
    assert bedrock().converse(**ask("one two three"))["stopReason"] == reason
    assert models.stats()["answered"] == 1


def test_a_guardrail_intervenes_where_one_is_set(models, bedrock):
    models.behave(failure="content_filter")
    guardrail = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    answer = bedrock().converse(**ask(guardrailConfig=guardrail))
    assert answer["stopReason"] == "guardrail_intervened"
    assert answer["output"]["message"]["content"] == [{"text": "Sorry, the model cannot answer this question."}]


def test_scripted_failures_come_in_order_and_per_model(models, send):
    own = {"failures": ["context_length"], "failure": "ServiceUnavailableException"}
    models.behave(failures=["rate_limit", None, "error"], models={"other": own})
    statuses = [send("/v1/chat/completions", CHAT)[0] for _ in range(4)]
    assert statuses == [429, 200, 500, 200]
    assert [send("/v1/chat/completions", {**CHAT, "model": "other"})[0] for _ in range(3)] == [400, 503, 503]


def test_an_error_in_anthropics_form_has_anthropics_type(models, send):
    models.behave(failure="rate_limit")
    _, _, body = send("/v1/messages", CHAT)
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "Rate limit reached"},
    }


def test_unknown_names_are_refused_with_the_known_ones(models):
    with pytest.raises(ValueError, match=r"unknown failure 'nonsense'; known: AccessDenied.*, bad_crc,"):
        check_name("nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        models.behave(models={MODEL: {"failures": ["nonsense"]}})
    with pytest.raises(TypeError, match="nonsense"):
        models.behave(nonsense=1)


def test_a_name_may_be_followed_by_a_message():
    assert find_failure("stream:ValidationException: Input is too long.").message == "Input is too long."
    assert find_failure("drop") is None
