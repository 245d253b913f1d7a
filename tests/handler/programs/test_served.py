"""The choice of the program for an event."""

from types import SimpleNamespace

import pytest

from dspy_lambda.errors import InvalidInput, ProgramFailed
from dspy_lambda.programs.served import Served

ECHO, SHOUT = SimpleNamespace(name="Echo"), SimpleNamespace(name="Shout")


@pytest.fixture
def broken(make_project, make_serve):
    serve = make_serve(
        make_project({"broken": "import nothing_of_that_name\nimport dspy\nclass Broken(dspy.Module): pass"})
    )
    return serve.environment.served


def test_an_event_without_a_name_is_for_the_only_program():
    assert Served({"Echo": ECHO}, {}).choose(None) is ECHO


def test_an_event_without_a_name_chooses_none_of_several_programs():
    assert Served({"Echo": ECHO, "Shout": SHOUT}, {}).choose(None) is None


@pytest.mark.parametrize("name", ["Nope", "", 1, [], {"Echo": 1}, True])
def test_an_unknown_name_chooses_no_program(name):
    assert Served({"Echo": ECHO}, {}).choose(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "The event names no program; this function serves: Echo, Shout."),
        ("Nope", "serves no program of that name; this function serves: Echo"),
    ],
)
def test_a_program_that_is_not_served_is_a_404_that_lists_the_served_ones(name, says):
    with pytest.raises(InvalidInput, match=says) as raised:
        Served({"Echo": ECHO, "Shout": SHOUT}, {}).require(name, None)
    assert raised.value.status == 404


def test_a_program_that_could_not_be_loaded_is_a_503_with_the_reason_as_its_cause(broken):
    with pytest.raises(ProgramFailed, match="could not be loaded") as raised:
        broken.require("Broken", broken.choose("Broken"))
    assert raised.value.status == 503
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
