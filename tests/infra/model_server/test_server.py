import asyncio
import http.client
import json
import time
import urllib.error
import urllib.request

import dspy
import pytest

from tests.support import wait_until

WIRES = {
    "chat": ("openai/own-model", "chat"),
    "responses": ("openai/own-model", "responses"),
    "anthropic": ("anthropic/own-model", "chat"),
    "gemini": ("gemini/own-model", "chat"),
}


@pytest.fixture(params=WIRES)
def wire(request, models):
    """Return an LM for each wire format of DSPy's own providers."""
    model, model_type = WIRES[request.param]
    return dspy.LM(model, model_type=model_type, api_base=models.url, api_key="k", cache=False)


def test_the_model_server_answers_and_counts_every_wire_format(models, wire):
    # Not from the LM's history, which another test's environment may have replaced.
    with dspy.context(lm=wire, track_usage=True):
        made = dspy.Predict("question -> answer, sure: bool")(question="What is it?")
    assert (made.answer, made.sure) == ("own-model: What is it?", True)
    counts = models.stats()
    assert (counts["requests"], counts["answered"], counts["per_model"]) == (1, 1, {"own-model": 1})
    (usage,) = made.get_lm_usage().values()
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        counts["prompt_tokens"],
        counts["completion_tokens"],
    )


def test_the_model_server_streams_in_every_wire_format(models, wire):
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])

    async def run():
        with dspy.context(lm=wire):
            return [part async for part in program(question="What is it?")]

    *chunks, prediction = asyncio.run(run())
    assert "".join(part.chunk for part in chunks if hasattr(part, "chunk")) == "own-model: What is it?"
    assert prediction.answer == "own-model: What is it?"


def post(models):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{models.url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("behavior", "status", "retry_after"),
    [
        ({"error_rate": 1}, 500, None),
        ({"rate_limit_rate": 1, "retry_after_seconds": 7}, 429, "7"),
        ({"rate_limit_rate": 1}, 429, None),
        ({"unauthorized_rate": 1}, 401, None),
    ],
)
def test_model_server_faults_return_their_status(models, behavior, status, retry_after):
    models.behave(**behavior)
    with pytest.raises(urllib.error.HTTPError) as error:
        post(models)
    assert (error.value.code, error.value.headers.get("Retry-After")) == (status, retry_after)


def test_a_dropped_connection_has_no_answer(models):
    models.behave(drop_rate=1)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the moment
        post(models)


def test_fault_rates_are_drawn_from_the_seed_and_behave_resets_them(models):
    def fates():
        models.behave(error_rate=0.5, seed=3)
        seen = []
        for _ in range(20):
            try:
                post(models)
                seen.append("ok")
            except urllib.error.HTTPError:
                seen.append("error")
        return seen

    first = fates()
    assert first == fates()
    assert set(first) == {"ok", "error"}
    models.behave()
    assert post(models)["choices"][0]["message"]["content"] == "m: hi"
    assert models.stats()["requests"] == 1


def test_a_reset_connection_has_no_answer(models):
    models.behave(reset_rate=1)
    with pytest.raises(ConnectionResetError):
        post_raw(models).getresponse()
    assert models.stats()["answered"] == 0


def post_raw(models, **body):
    connection = http.client.HTTPConnection(models.address.removeprefix("http://"), timeout=60)
    document = {"model": "m", "messages": [{"role": "user", "content": "one two three"}], **body}
    connection.request("POST", "/v1/chat/completions", json.dumps(document), {"Content-Type": "application/json"})
    return connection


def test_a_trickle_sends_headers_at_once_and_the_body_byte_by_byte(models):
    models.behave(trickle_seconds=0.01)
    answer = post_raw(models).getresponse()
    begin = time.monotonic()
    assert len(answer.read1(1000)) < 100
    json.loads(b"{" + answer.read().partition(b", ")[2])
    assert time.monotonic() - begin > 1


def test_slow_headers_come_byte_by_byte_and_the_body_at_once(models):
    models.behave(slow_headers_seconds=0.01)
    begin = time.monotonic()
    answer = post_raw(models).getresponse()
    assert time.monotonic() - begin > 0.5
    assert json.loads(answer.read())["model"] == "m"
    assert models.stats()["answered"] == 1


def test_a_padded_answer_has_the_requested_size_and_the_same_values(models):
    models.behave(answer_bytes=100_000)
    body = post_raw(models).getresponse().read()
    assert len(body) == 100_000
    assert json.loads(body)["choices"][0]["message"]["content"] == "m: one two three"


def test_a_streaming_answer_consists_of_server_sent_events(models):
    answer = post_raw(models, stream=True).getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    events = [line.removeprefix("data: ") for line in answer.read().decode().splitlines() if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(texts) == "m: one two three"
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_arrivals_answers_and_tokens_are_counted(models):
    begin = time.monotonic()
    for _ in range(3):
        post(models)
    stats = models.stats()
    assert len(stats["started"]) == 3
    assert begin < stats["started"][0] < stats["started"][2] < time.monotonic()
    assert (stats["answered"], stats["prompt_tokens"], stats["completion_tokens"]) == (3, 3, 6)


@pytest.mark.parametrize("fault", ["error_rate", "rate_limit_rate", "unauthorized_rate", "drop_rate", "reset_rate"])
def test_a_fault_counts_as_a_request_but_not_as_an_answer(models, fault):
    models.behave(**{fault: 1})
    with pytest.raises((OSError, http.client.HTTPException)):
        post(models)
    stats = models.stats()
    assert (len(stats["started"]), stats["answered"], stats["prompt_tokens"]) == (1, 0, 0)


def test_an_answer_to_a_disconnected_client_is_not_counted(models):
    models.behave(delay_seconds=0.5)
    connection = post_raw(models)
    wait_until(lambda: models.stats()["requests"])
    connection.close()
    wait_until(lambda: models.stats()["in_flight"] == 0)
    assert (models.stats()["requests"], models.stats()["answered"]) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ({"failure": "context_length"}, 400, b"context_length_exceeded"),
        ({"failure": "refused"}, 400, b'"code": "content_filter"'),
        ({"failure": "content_filter"}, 200, b'"finish_reason": "content_filter"'),
        ({"models": {"another": {"error_rate": 1}}}, 200, b'"finish_reason": "stop"'),
    ],
)
def test_context_windows_content_filters_and_faults_of_one_model(models, fault, status, says):
    models.behave(**fault)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "q"}]}).encode()
    request = urllib.request.Request(f"{models.url}/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            found = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        found = error.code, error.read()
    assert (found[0], says in found[1]) == (status, True)
