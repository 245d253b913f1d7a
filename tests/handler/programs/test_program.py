import dspy
import pytest

from dspy_lambda.config import load_config
from dspy_lambda.programs.discovery import load_programs
from dspy_lambda.programs.program import choose_entry
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
def test_native_async_depends_on_the_order_of_definition(make, is_async):
    assert choose_entry(make()).is_async is is_async


class SyncLM(dspy.BaseLM):
    """An LM that cannot be awaited."""

    def forward(self, prompt=None, messages=None, **kwargs): ...


class AsyncLM(SyncLM):
    async def aforward(self, prompt=None, messages=None, **kwargs): ...


def with_lm(module, lm):
    module.set_lm(lm)
    return module


class OwnAforward(dspy.ChainOfThought):
    async def aforward(self, **inputs): ...


@pytest.mark.parametrize(
    ("make", "is_async"),
    [
        (lambda: with_lm(dspy.Predict("a -> b"), SyncLM("m")), False),
        (lambda: with_lm(dspy.ChainOfThought("a -> b"), SyncLM("m")), False),
        (lambda: with_lm(dspy.Predict("a -> b"), AsyncLM("m")), True),
        (lambda: with_lm(dspy.Predict("a -> b"), dspy.LM("openai/m")), True),
        (lambda: with_lm(OwnAforward("a -> b"), SyncLM("m")), True),
    ],
)
def test_a_dspy_module_with_a_sync_lm_is_called_in_a_thread(make, is_async):
    assert choose_entry(make()).is_async is is_async


def test_a_program_with_a_sync_lm_answers(make_project, make_serve):
    source = """
    class Constant(dspy.BaseLM):
        def forward(self, prompt=None, messages=None, **kwargs):
            from types import SimpleNamespace as Some
            message = Some(content="[[ ## answer ## ]]\\nblue\\n\\n[[ ## completed ## ]]")
            return Some(choices=[Some(message=message, finish_reason="stop")], usage={}, model="constant")
    class Own(dspy.Predict):
        def __init__(self):
            super().__init__("question -> answer")
            self.lm = Constant("constant")
    """
    serve = make_serve(make_project({"own": source}))
    assert serve({"inputs": {"question": "q"}})["outputs"] == {"answer": "blue"}


class Yields(dspy.Module):
    def forward(self):
        yield 1


class AYields(dspy.Module):
    async def aforward(self):
        yield 1


@pytest.mark.parametrize(("cls", "method"), [(Yields, "forward"), (AYields, "aforward")])
def test_a_generator_method_is_refused(cls, method):
    with pytest.raises(TypeError, match=f"^{method} is a generator; a program must return its whole result"):
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
def test_aliased_and_decorated_methods_are_called(make_project, make_serve, body):
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
