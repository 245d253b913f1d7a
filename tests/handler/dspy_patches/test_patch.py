"""A patch is applied as a whole, once, or left out with the reason."""

import sys
import types

import pytest

from dspy_lambda.dspy_patches.patch import Name, Patch, apply_patch, apply_patches


def one(a): ...


async def three(c): ...


class Holder:
    def __init__(self):
        self._kept = 1

    def method(self, a, b=1): ...


@pytest.fixture
def module(monkeypatch):
    found = types.ModuleType("fake_dspy")
    vars(found).update(one=one, two=lambda b: ("two", b), three=three, Holder=Holder, number=1)
    monkeypatch.setitem(sys.modules, "fake_dspy", found)
    return found


def name(at, *parameters, wrap=lambda function: lambda *a: ("wrapped", function(*a)), **more):
    return Name("fake_dspy", at, *parameters, wrap=wrap, **more)


GROUNDS = {
    "takes (b), not (a)": name("two", "a"),
    "no attribute 'four'": name("four", "a"),
    "fake_dspy.three changed between async and sync": name("three", "c"),
    "fake_dspy.two changed between async and sync": name("two", "b", is_async=True),
    "No module named": Name("no_dspy", "x", ""),
    "has no attribute 'gone'": name("Holder.gone", "self"),
    "takes (self a b), not (self x ...)": name("Holder.method", "self x ..."),
    "fake_dspy.Holder.__init__ has no _gone": name("Holder.__init__", attributes="_gone _kept"),
    "fake_dspy.number has no anything": name("number", attributes="anything"),
    "fake_dspy.number: 1 is not a callable object": name("number", "a"),
}


@pytest.mark.parametrize(("reason", "differs"), GROUNDS.items(), ids=GROUNDS)
def test_a_patch_is_left_out_as_a_whole_if_a_name_changed(module, reason, differs):
    assert reason in apply_patch(Patch("p", "", (name("one", "a"), differs)))
    assert module.one is one


def test_a_patch_is_applied_as_a_whole_if_all_names_match(module):
    kept = name("Holder.__init__", attributes="_kept", wrap=None)
    assert (
        apply_patch(Patch("p", "", (name("one", "a"), name("two", "b"), name("Holder.method", "self a ..."), kept)))
        is None
    )
    assert module.one("x") == ("wrapped", None)
    assert module.two("x") == ("wrapped", ("two", "x"))
    assert module.one.__wrapped__ is one
    Holder.method = Holder.method.__wrapped__


def test_a_patch_is_left_out_if_its_further_work_raises(module):
    def refuse():
        raise TypeError("no such setting")

    assert apply_patch(Patch("p", "", (name("one", "a"),), refuse)) == "TypeError: no such setting"
    assert module.one is one


def test_a_patch_is_applied_once(module):
    patch = Patch("p", "", (name("one", "a"),))
    assert apply_patch(patch) is apply_patch(patch) is None
    assert module.one.__wrapped__ is one


def test_patches_left_out_are_returned_with_the_reason(module):
    good, bad = Patch("good", "", (name("one", "a"),)), Patch("bad", "", (name("four"),))
    left_out = apply_patches([good, bad])
    assert list(left_out) == ["bad"]
    assert "fake_dspy.four" in left_out["bad"]


def test_a_replacement_that_is_not_a_function_is_not_wrapped(module):
    stand_in = types.SimpleNamespace()
    assert apply_patch(Patch("p", "", (name("number", wrap=lambda _: stand_in),))) is None
    assert module.number is stand_in
    assert vars(stand_in) == {}
