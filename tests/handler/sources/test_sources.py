"""Any event gets an answer of the contract or a named error."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_lambda.errors import CallError, ConfigError, UnknownEvent
from dspy_lambda.sources import prepare
from tests.conftest import EVENTS, QUICKSTART
from tests.support import ECHO

SAMPLES = [json.loads(path.read_text()) for path in sorted(EVENTS.glob("*.json"))]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.just("\ud800"),
    st.just("\0"),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda: {"a": [None]}),
)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (None, "JSON NoneType"),
        ([], "JSON list"),
        ("text", "JSON str"),
        (5, "JSON int"),
        ({}, r"\(none\)"),
        ({"Records": []}, "Records"),
        ({"Records": [{"eventSource": "aws:s3"}]}, "Records"),
        ({"program": "Echo"}, "program"),
        ({"inputs": {}, "more": 1}, "inputs, more"),
        ({"source": "aws.events", "detail": {}}, "constant input"),
        ({"requestContext": {}}, "requestContext"),
    ],
)
def test_an_event_from_no_known_source_is_an_unknown_event(make_project, make_serve, event, says):
    serve = make_serve(make_project({"echo": ECHO}))
    with pytest.raises(UnknownEvent, match=says):
        serve(event)


def test_the_message_about_an_unknown_event_can_be_encoded(make_project, make_serve):
    """On Python 3.12 and later, half of a surrogate pair ends the runtime client and its environment."""
    serve = make_serve(make_project({"echo": ECHO}))
    with pytest.raises(UnknownEvent, match="keys: a\\?b") as caught:
        serve({"a\ud800b": 1})
    str(caught.value).encode()


def paths(value, path=()):
    """All places within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@st.composite
def mutated_events(draw):
    """A sample event of which up to three places were removed or replaced."""
    event = copy.deepcopy(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        places = [path for path in paths(event) if path]
        if not places:
            break
        path = draw(st.sampled_from(places))
        parent = event
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()) and isinstance(parent, dict):
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(VALUES)
    return event


@pytest.fixture
def quickstart(make_serve):
    return make_serve(QUICKSTART)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=300
)
@given(event=mutated_events())
def test_a_mutated_event_gets_an_answer_or_a_named_error(quickstart, event):
    try:
        answer = quickstart(event)
    except (UnknownEvent, CallError):
        return
    assert {"statusCode", "batchItemFailures", "outputs"} & set(answer)
    if "Records" in event:
        sent = [record.get("messageId") for record in event["Records"] if isinstance(record, dict)]
        assert all(failure["itemIdentifier"] in [*sent, ""] for failure in answer["batchItemFailures"])


def test_every_known_source_can_be_prepared(make_serve):
    environment = make_serve(QUICKSTART, DSPY_LAMBDA_SOURCES="http, sqs,direct").environment
    prepare(environment)
    assert [make.__name__ for make in environment._parts] == ["_make_app", "Queues"]


def test_an_environment_with_an_unknown_source_is_not_built(make_serve):
    with pytest.raises(ConfigError, match="unknown source 'smtp'; must be among http, sqs, direct"):
        make_serve(QUICKSTART, DSPY_LAMBDA_SOURCES="http,smtp")
