import functools
import threading
from collections import Counter, OrderedDict, defaultdict, deque

import dspy
import pytest

from dspy_lambda.programs.copies import MAX_ITEMS, Copier


class Holds(dspy.Module):
    """A module with these attributes."""

    def __init__(self, **attributes):
        super().__init__()
        self.note = None
        vars(self).update(attributes)

    def save(self, text: str = "x") -> str:
        """Keep a text."""
        self.note = text
        return "saved"

    def must(self, inputs, prediction):
        return self.note

    def read(self):
        return self.note


def copy(module):
    return Copier(module).copy(list)


def test_a_tool_made_from_a_method_uses_the_calls_copy():
    program = Holds()
    program.react = dspy.ReAct("question -> answer", tools=[program.save])
    alice, bob = copy(program), copy(program)
    assert alice.react.tools["save"](text="hers") == "saved"
    assert (alice.note, bob.note, program.note) == ("hers", None, None)
    bob.note = "his"
    assert (alice.react.tools["save"].func(), alice.note, bob.note) == ("saved", "x", "his")


def test_a_copied_tool_keeps_the_description_of_its_function():
    program = Holds()
    program.react = dspy.ReAct("question -> answer", tools=[program.save])
    tool, copied = program.react.tools["save"], copy(program).react.tools["save"]
    assert copied is not tool
    assert (type(copied), copied.name, copied.desc, copied.args) == (dspy.Tool, tool.name, tool.desc, tool.args)
    assert str(copied) == str(tool)
    with pytest.raises(ValueError, match="unknown is not in the tool's args"):
        copied(unknown=1)


@pytest.mark.parametrize("kind", [dspy.BestOfN, dspy.Refine])
def test_a_reward_function_reads_the_calls_copy(kind):
    program = Holds()
    program.best = kind(dspy.Predict("a -> b"), N=1, reward_fn=program.must, threshold=1.0)
    clone = copy(program)
    clone.note = "mine"
    assert (clone.best.reward_fn({}, None), program.best.reward_fn({}, None)) == ("mine", None)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.messages.append("hers"),
        lambda p: p.messages[0]["text"].append("hers"),
        lambda p: p.pair[0].append("hers"),
        lambda p: p.seen.add("hers"),
        lambda p: p.recent.append("hers"),
        lambda p: p.by_name["hers"].append(1),
        lambda p: p.counts.update(["hers"]),
        lambda p: p.ordered.update(hers=1),
        lambda p: p.inner.predict.demos.append({"hers": 1}),
        lambda p: p.inner.predict.config.update(temperature=1.0),
        lambda p: p.steps[0].demos.append({"hers": 1}),
        lambda p: p.steps.clear(),
        lambda p: p.set_lm("hers"),
        lambda p: setattr(p.inner.predict, "signature", dspy.Signature("hers -> b")),
        lambda p: setattr(p.inner, "hers", 1),
        lambda p: setattr(p.inner.predict, "traces", ["hers"]),
        lambda p: p.callbacks.append("hers"),
        lambda p: p.inner.history.append("hers"),
    ],
)
def test_changes_below_self_do_not_outlive_the_call(change):
    def state(module):
        return repr([vars(module), [vars(sub) for _, sub in module.named_sub_modules()]])

    program = Holds(
        messages=[{"text": ["first"]}],
        pair=(["first"], 1),
        seen={"first"},
        recent=deque(["first"], maxlen=3),
        by_name=defaultdict(list, first=[1]),
        counts=Counter("a"),
        ordered=OrderedDict(a=1),
        inner=dspy.ChainOfThought("a -> b"),
        steps=[dspy.Predict("c -> d")],
    )
    copier = Copier(program)
    before, clone = state(program), copier.copy(list)
    change(clone)
    assert "hers" in state(clone) or "temperature" in state(clone) or not clone.steps
    assert state(program) == before
    assert "hers" not in state(copier.copy(list))
    assert clone.recent.maxlen == 3


def test_an_object_held_twice_is_copied_once():
    predict = dspy.Predict("a -> b")
    program = Holds(first=predict, both=[predict, predict], pair=(predict,), by_name={"p": predict}, bag={predict})
    clone = copy(program)
    assert clone.first is not predict
    assert [clone.both[0], clone.both[1], clone.pair[0], clone.by_name["p"], *clone.bag] == [clone.first] * 5


def test_cycles_are_copied_as_cycles():
    program, child, ring = Holds(), Holds(), []
    ring.append(ring)
    program.child, child.parent = child, program
    program.ring, program.record = ring, {"owner": (program,)}
    clone = copy(program)
    assert clone.child.parent is clone
    assert clone.child is not child
    assert clone.ring[0] is clone.ring
    assert clone.ring is not ring
    assert clone.record["owner"] == (clone,)


def test_partial_objects_and_closures_over_self_work_on_the_copy():
    program = Holds()
    named = functools.update_wrapper(functools.partial(program.save, text="partly"), program.save)

    def tell(*, mark="!"):
        """Say it."""
        return str(program.note) + mark

    def count(n):
        return [program.note] if n == 0 else [*count(n - 1), n]

    tell.price = 3
    program.partial, program.tell, program.count = named, tell, count
    program.quick, program.asyncified = lambda: program.note, dspy.asyncify(program.save)
    clone = copy(program)
    clone.partial()
    assert (clone.note, program.note) == ("partly", None)
    assert (clone.partial.__name__, clone.partial.keywords) == ("save", {"text": "partly"})
    assert (clone.tell(), clone.tell(mark="?")) == ("partly!", "partly?")
    assert (clone.quick(), program.quick()) == ("partly", None)
    assert (clone.tell.__name__, clone.tell.__doc__, clone.tell.price) == ("tell", "Say it.", 3)
    assert clone.tell.__qualname__ == tell.__qualname__
    assert clone.count(1) == ["partly", 1]
    assert clone.asyncified is not program.asyncified


def test_a_closures_list_is_copied_if_self_holds_it_and_shared_if_it_is_a_decorators():
    def remembered(function):
        answers = {}

        def run(text):
            return answers.setdefault(text, function(text))

        return run

    notes = []

    def save(text):
        notes.append(text)

    program = Holds(save=save, notes=notes, remembered=remembered(str.upper))
    clone = copy(program)
    clone.save("mine")
    assert (clone.notes, program.notes) == (["mine"], [])
    assert clone.remembered is program.remembered


def test_other_objects_are_shared_with_the_copy():
    class Client:
        pass

    class Closing(dspy.Module):
        def __del__(self):
            closed.append(self)

    closed = []
    shared = {
        "client": Client(),
        "lm": dspy.LM("openai/gpt-4.1-nano"),
        "lock": threading.Lock(),
        "example": dspy.Example(a=1),
        "signature": dspy.Signature("a -> b"),
        "plain": test_cycles_are_copied_as_cycles,
        "scalars": (1, "a", (2,)),
        "ask": Client.__init__,
        "bound": threading.Event().set,
        "closing": Closing(),
    }
    clone = copy(Holds(**shared))
    assert all(getattr(clone, name) is value for name, value in shared.items())
    del clone
    assert closed == []


@pytest.mark.parametrize(
    ("value", "is_large"),
    [
        (["x"] * MAX_ITEMS, False),
        (["x"] * (MAX_ITEMS + 1), True),
        ([{"a": 1, "b": 2}] * 2, False),
        ([{"a": 1, "b": 2} for _ in range(MAX_ITEMS // 3 + 1)], True),
        ((["x"] * MAX_ITEMS,), True),
        ({n: n for n in range(MAX_ITEMS + 1)}, True),
        (functools.reduce(lambda inner, _: [inner], range(100_000), []), True),
    ],
)
def test_large_containers_are_shared_and_listed(value, is_large):
    program = Holds(inner=Holds(corpus=value))
    copier = Copier(program)
    assert (copier.copy(list).inner.corpus is value) is is_large
    assert copier.too_large == (["self.inner.corpus"] if is_large else [])


def test_a_copy_has_the_programs_current_state():
    program = Holds(index=None, steps=[dspy.Predict("a -> b")])
    copier = Copier(program)
    program.index, new = "built by a thread of the program's", dspy.Predict("c -> d")
    program.steps.append(new)
    assert copier.copy(list).index == program.index
    assert copier.copy(list).steps[1] is new


def test_methods_set_on_the_instance_are_bound_to_the_copy():
    class Async(dspy.Module):
        async def aforward(self):
            return self

    program = dspy.syncify(Async())
    clone = copy(program)
    assert clone() is clone


def test_a_copy_keeps_the_modules_callbacks():
    program = Holds(inner=Holds())
    program.callbacks, program.inner.callbacks = ["mine"], ["below"]
    clone = copy(program)
    assert (clone.callbacks, clone.inner.callbacks) == (["mine"], ["below"])
