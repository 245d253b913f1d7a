"""What of a call is written, by `telemetry.payloads`."""

import json

import pytest

from tests.support import AECHO, ECHO

PROGRAMS = {"echo": ECHO, "aecho": AECHO}


@pytest.fixture
def serve(make_project, make_serve):
    def make(modules=None, /, **telemetry):
        return make_serve(make_project(modules or PROGRAMS, telemetry=telemetry))

    return make


def call_of(records):
    (call,) = records().calls
    return call


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_nothing_is_written_by_default(serve, records, program):
    serve().post(f"/{program}", {"question": "quite private"})
    assert not call_of(records).keys() & {"inputs", "outputs", "inputs_bytes", "outputs_bytes"}


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_sizes_are_those_of_the_json(serve, records, program):
    answer = serve(payloads="sizes").post(f"/{program}", {"question": "quite private"})
    call = call_of(records)
    assert call["inputs_bytes"] == len('{"question":"quite private"}')
    assert call["outputs_bytes"] == len(answer.body)
    assert "private" not in json.dumps(call)


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
@pytest.mark.parametrize("word", ["masked", "full"])
def test_texts_are_json_values(serve, records, program, word):
    answer = serve(payloads=word).post(f"/{program}", {"question": "quite private"})
    call = call_of(records)
    assert call["inputs"] == {"question": "quite private"}
    assert call["outputs"] == json.loads(answer.body)
