from __future__ import annotations

import dataclasses
import functools
import logging
import typing
from typing import TYPE_CHECKING, Any, Optional, Required

import dspy
import pytest
from pydantic import TypeAdapter

from dspy_lambda.errors import InvalidInput
from dspy_lambda.programs.hints import readable, resolvable
from tests.support import schemas

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(dspy.Module):
    def forward(self, question: str, needed: Callable, on_event: Callable | None = None) -> Callable: ...


def test_a_hint_that_cannot_be_resolved_is_not_validated_and_logged_once(caplog):
    caplog.set_level(logging.WARNING, "dspy_lambda")
    found = schemas(Watched())
    assert found.inputs.validate({"question": "q", "needed": 5}) == {"question": "q", "needed": 5}
    assert found.input_schema["required"] == ["question", "needed"]
    with pytest.raises(InvalidInput):
        found.inputs.validate({"question": 5, "needed": 5})
    assert found.output_schema == {"type": "object", "title": "WatchedOutputs"}
    assert found.result_field == "result"
    assert caplog.messages == [
        f"Watched.forward: cannot read the hint of {name} (NameError); its inputs are not validated"
        for name in ("needed", "on_event")
    ]


def test_a_callable_that_is_not_a_function_has_no_hints():
    assert resolvable(functools.partial(print)) == {}


class Place(typing.TypedDict):
    city: str
    street: typing.NotRequired[str]


class Trip(typing.TypedDict, total=False):
    start: Required[Place]
    stops: list[Place]
    back: Trip


@dataclasses.dataclass
class Booking:
    place: Place


class Travels(dspy.Module):
    def forward(
        self,
        trip: Trip,
        places: Optional[list[Place]] = None,  # noqa: UP045
        by_name: dict[str, Place] | None = None,
        booking: Booking = None,
    ) -> Place: ...


def test_a_standard_library_typed_dict_is_validated_on_every_python():
    found = schemas(Travels())
    given = {"trip": {"start": {"city": "a"}, "stops": [{"city": "b", "street": "c"}]}, "places": [], "by_name": None}
    assert found.inputs.validate(given) == given
    for trip in ({}, {"start": {}}, {"start": {"city": "a"}, "stops": [{"street": "c"}]}):
        with pytest.raises(InvalidInput):
            found.inputs.validate({"trip": trip})
    assert found.input_schema["required"] == ["trip"]
    assert found.output_schema["required"] == ["city"]


@dataclasses.dataclass
class Hook:
    call: Callable


class Half(typing.TypedDict):
    city: str
    hook: Callable


class Hooked(dspy.Module):
    def forward(self, half: Half, hook: Hook, other: Hook | None = None) -> Half: ...


@pytest.mark.parametrize(
    ("program", "inputs"),
    [
        (Travels, {"trip": {"start": {"city": "a"}}, "booking": {"place": {"city": "b"}}}),
        (Hooked, {"half": {"city": "b"}, "hook": {"call": "c"}}),
    ],
)
def test_an_unreadable_nested_hint_does_not_fail_the_program(program, inputs):
    found = schemas(program())
    found.inputs.validate(inputs)
    assert found.input_schema["properties"].keys() >= inputs.keys()
    assert found.output_schema["type"] == "object"


def test_a_hint_without_a_typed_dict_is_unchanged():
    for hint in (int, list[int], dict[str, Any], Optional[int], typing.Literal["a"], typing.Callable[[int], str]):  # noqa: UP045
        assert readable(hint) is hint
    assert TypeAdapter(readable(typing.Annotated[Place, "x"])).validate_python({"city": "a"}) == {"city": "a"}
