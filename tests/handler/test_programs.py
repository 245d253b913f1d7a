import dspy
import pytest

from dspy_lambda.config import load_config
from dspy_lambda.discovery import load_programs
from dspy_lambda.programs import choose_entry
from tests.support import ECHO


def load(project, **options):
    return load_programs(project, load_config(project), **options)


class Sync(dspy.Module):
    def forward(self): ...


class Async(dspy.Module):
    async def aforward(self): ...


class Both(Sync):
    async def aforward(self): ...


class SyncOverAsync(Async):
    def forward(self): ...


class ChildOfBoth(Both):
    pass


class AsyncForward(dspy.Module):
    async def forward(self): ...


class SyncOverPredict(dspy.Predict):
    def __init__(self):
        super().__init__("a -> b")

    def forward(self, **inputs): ...


def tool(): ...


# The MRO rule of FACTS.md, over DSPy's own classes and the ways to override them.
@pytest.mark.parametrize(
    ("make", "is_async"),
    [
        (Sync, False),
        (Async, True),
        (Both, True),
        (SyncOverAsync, False),
        (ChildOfBoth, True),
        (AsyncForward, True),
        (SyncOverPredict, False),
        (lambda: dspy.Predict("a -> b"), True),
        (lambda: dspy.ChainOfThought("a -> b"), True),
        (lambda: dspy.ReAct("a -> b", tools=[tool]), True),
        (lambda: dspy.ProgramOfThought("a -> b"), False),
        (lambda: dspy.CodeAct("a -> b", tools=[tool]), False),
        (lambda: dspy.RLM("a -> b"), True),
        (lambda: dspy.MultiChainComparison("a -> b"), False),
        (lambda: dspy.BestOfN(dspy.Predict("a -> b"), N=2, reward_fn=lambda *_: 1.0, threshold=1.0), False),
        (lambda: dspy.Refine(dspy.Predict("a -> b"), N=2, reward_fn=lambda *_: 1.0, threshold=1.0), False),
        (lambda: dspy.syncify(Async()), False),
    ],
)
def test_native_async_is_told_by_the_order_of_definition(make, is_async):
    assert choose_entry(make()).is_async is is_async


class Yields(dspy.Module):
    def forward(self):
        yield 1


class AYields(dspy.Module):
    async def aforward(self):
        yield 1


@pytest.mark.parametrize(("cls", "method"), [(Yields, "forward"), (AYields, "aforward")])
def test_a_method_that_yields_is_refused(cls, method):
    with pytest.raises(TypeError, match=f"^{method} yields; a program returns its result as a whole"):
        choose_entry(cls())


def test_a_copy_keeps_callbacks_and_shares_no_attribute_set_later(make_project):
    programs, _ = load(make_project({"echo": ECHO}))
    shared = programs["Echo"].instance
    shared.callbacks = ["mine"]
    clone = programs["Echo"].copy()
    clone.extra = clone.predict.extra = 1
    assert clone.callbacks == ["mine"]
    assert not hasattr(shared, "extra")
    assert not hasattr(shared.predict, "extra")
    assert clone.history is not shared.history


@pytest.mark.parametrize(
    "body",
    [
        "async def _impl(self, a: int): return a\n    aforward = _impl",
        "@wrap\n    async def forward(self, a: int): return a",
    ],
)
def test_methods_behind_other_names_and_decorators_are_called(make_project, make_serve, body):
    source = f"""
import functools
def wrap(method):
    @functools.wraps(method)
    def inner(*args, **kwargs):
        return method(*args, **kwargs)
    return inner
class Odd(dspy.Module):
    {body}
"""
    assert make_serve(make_project({"odd": source}))({"inputs": {"a": 1}})["outputs"] == {"result": 1}
