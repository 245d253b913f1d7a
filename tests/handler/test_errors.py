import asyncio
import json
import math
import signal
import subprocess
import sys
import threading
import time

import dspy
import pytest
from dspy.utils import exceptions as lm
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda import errors
from dspy_lambda.errors import (
    CallError,
    DeadlineExceeded,
    InvalidInput,
    ModelUnavailable,
    ProgramFailed,
    RateLimited,
    from_exception,
)
from tests.handler import hostile
from tests.support import unmeasured, without_retries

KINDS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CallError)} - {CallError}
# `exec` with globals whose `__name__` is not a string: dspy_patches compares it.
HARMLESS = {"globals of its own"}


@pytest.mark.parametrize(
    ("raised", "error", "status"),
    [
        (lm.LMRateLimitError("sk-secret", retry_after=7), RateLimited, 429),
        (lm.LMAuthError("sk-secret"), ModelUnavailable, 502),
        (lm.LMBillingError("sk-secret"), ModelUnavailable, 502),
        (lm.LMUnsupportedModelError("sk-secret"), ModelUnavailable, 502),
        (lm.LMNotConfiguredError("sk-secret"), ModelUnavailable, 502),
        (lm.LMServerError("sk-secret"), ModelUnavailable, 502),
        (lm.LMTransportError("sk-secret"), ModelUnavailable, 502),
        (lm.LMTimeoutError("sk-secret"), ModelUnavailable, 502),
        (lm.LMUnexpectedError("sk-secret"), ModelUnavailable, 502),
        (lm.ContextWindowExceededError(message="sk-secret"), ModelUnavailable, 502),
        (lm.AdapterParseError("a", dspy.Signature("a -> b"), "sk-secret"), ModelUnavailable, 502),
        (ValueError("sk-secret"), ProgramFailed, 500),
        (KeyError("sk-secret"), ProgramFailed, 500),
    ],
)
def test_a_programs_exception_becomes_its_call_error_without_its_text(raised, error, status):
    found = from_exception(raised)
    assert type(found) is error
    assert found.status == status
    assert "sk-secret" not in f"{found} {found.title}"


@pytest.mark.parametrize(
    ("raised", "temporary"),
    [
        (lm.LMRateLimitError(""), True),
        (lm.LMServerError(""), True),
        (lm.LMTransportError(""), True),
        (lm.LMTimeoutError(""), True),
        (lm.LMAuthError(""), True),
        (lm.LMUnsupportedModelError(""), True),
        (DeadlineExceeded(""), True),
        (lm.LMInvalidRequestError(""), False),
        (lm.ContextWindowExceededError(), False),
        (lm.AdapterParseError("a", dspy.Signature("a -> b"), ""), False),
        (InvalidInput(""), False),
        (ValueError(""), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_that_may_succeed_later_are_temporary(raised, temporary):
    assert from_exception(raised).temporary is temporary


def test_retry_after_and_call_errors_are_kept():
    assert from_exception(lm.LMRateLimitError("", retry_after=7)).retry_after == 7
    own = InvalidInput("no")
    assert from_exception(own) is own


def test_every_typed_lm_error_of_this_dspy_is_a_model_error_or_a_rate_limit():
    kinds = [kind for kind in vars(lm).values() if isinstance(kind, type) and issubclass(kind, lm.LMError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert from_exception(kind()).outcome in ("model_error", "rate_limited")


def test_a_wrapped_reason_is_still_the_reason():
    limited = lm.LMRateLimitError("", retry_after=3)
    assert from_exception(ExceptionGroup("g", [limited, limited])).retry_after == 3
    assert type(from_exception(ExceptionGroup("g", [limited, ValueError()]))) is ProgramFailed
    wrapped = ValueError("mine")
    wrapped.__cause__ = limited
    assert type(from_exception(wrapped)) is RateLimited
    assert type(from_exception(ValueError(), limited)) is ProgramFailed


def test_failures_inside_a_task_group_and_parallel_keep_their_names(make_project, make_serve, models):
    source = """
    import asyncio
    class Group(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        async def aforward(self, question: str):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(self.predict.acall(question=question))
    class Fan(Group):
        def forward(self, question: str):
            pairs = [(self.predict, {"question": "q"})] * 3
            dspy.Parallel(num_threads=2, max_errors=1, disable_progress_bar=True)(pairs)
    """
    serve = without_retries(make_serve(make_project({"fan": source})))
    for fault, status in (({"rate_limit_rate": 1}, 429), ({"unauthorized_rate": 1}, 502)):
        models.behave(**fault)
        for name in ("Group", "Fan"):
            assert serve.post(f"/{name}", {"question": "q"}).status == status


def assert_answerable(found):
    """Assert that every source can log and answer a CallError."""
    kind = type(found)
    assert type(kind) is type
    assert any(base in KINDS for base in kind.__mro__)
    assert found.retry_after is None or math.isfinite(found.retry_after)
    parts = [found.outcome, found.title, found.status, found.detail, found.errors, str(found), repr(found)]
    json.dumps(parts, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("lm_error", [None, lm.LMRateLimitError()])
def test_any_exception_becomes_a_call_error_without_running_its_code(lm_error):
    for name, make in hostile.ZOO.items():
        raised = make()
        hostile.touched.clear()
        start = time.thread_time()  # which a busy machine does not change
        found = from_exception(raised, lm_error)
        assert time.thread_time() - start < 2, name
        assert not hostile.touched or name in HARMLESS, name
        assert_answerable(found)
        assert hostile.SECRET not in found.detail, name


NODES = [
    lambda: ValueError("x"),
    lambda: SystemExit(1),
    lambda: lm.LMRateLimitError("x", retry_after=3),
    lambda: lm.LMAuthError("x"),
    lambda: InvalidInput("x"),
    hostile.ZOO["Exception with __getattribute__"],
    hostile.ZOO["RateLimited, metaclass with __eq__"],
    hostile.ZOO["LMRateLimitError with property __class__"],
]


# Numbers, not exceptions: Hypothesis would look at those.
NUMBERS = st.integers(0, 11)
PLANS = st.tuples(
    st.lists(NUMBERS, min_size=1, max_size=6),
    st.lists(st.lists(NUMBERS, min_size=1, max_size=4), max_size=6),
    st.lists(st.tuples(st.sampled_from(["__cause__", "__context__"]), NUMBERS, NUMBERS), max_size=8),
)


def build(plan, *, cycles):
    """The last of some exceptions and groups, linked by causes and contexts; without cycles, only to earlier ones."""
    kinds, groups, links = plan
    nodes = [NODES[kind % len(NODES)]() for kind in kinds]
    for members in groups:
        nodes.append(BaseExceptionGroup("g", [nodes[member % len(nodes)] for member in members]))
    for slot, link, target in links:
        link, target = link % len(nodes), target % len(nodes)
        if cycles or target < link:
            BaseException.__dict__[slot].__set__(nodes[link], nodes[target])
    return nodes[-1]


@given(PLANS)
def test_any_graph_of_exceptions_becomes_one_call_error(plan):
    root = build(plan, cycles=True)
    hostile.touched.clear()
    assert_answerable(from_exception(root))
    assert not hostile.touched


@given(PLANS)
def test_a_graph_without_cycles_has_the_meaning_of_its_ends(plan):
    root = build(plan, cycles=False)
    assert type(from_exception(root)) is kind_of(root)


def kind_of(error):
    """The definition, recursively."""
    if issubclass(type(error), CallError | lm.LMError):
        return type(from_exception(error))
    if issubclass(type(error), BaseExceptionGroup):
        kinds = {kind_of(member) for member in error.exceptions}
        return kinds.pop() if len(kinds) == 1 else ProgramFailed
    cause = BaseException.__dict__["__cause__"].__get__(error)
    return ProgramFailed if cause is None else kind_of(cause)


def test_a_shared_member_counts_once_and_a_cycle_does_not_count():
    limited = lm.LMRateLimitError("", retry_after=3)
    group = limited
    for _ in range(60):
        group = ExceptionGroup("g", [group, group])
    assert from_exception(group).retry_after == 3
    member = ValueError()
    group = ExceptionGroup("g", [member, limited])
    member.__cause__ = group
    assert type(from_exception(group)) is RateLimited


def test_a_long_chain_is_followed_for_1000_links():
    near, far = (chain(length, lm.LMRateLimitError()) for length in (900, 1100))
    assert type(from_exception(near)) is RateLimited
    assert type(from_exception(far)) is ProgramFailed


def chain(length, end):
    for _ in range(length):
        link = ValueError()
        link.__cause__, end = end, link
    return end


@pytest.mark.parametrize("value", hostile.NONSENSE)
def test_an_invalid_retry_after_is_ignored(value):
    limited = lm.LMRateLimitError()
    limited.retry_after = value
    assert from_exception(limited).retry_after is None
    found = from_exception(RateLimited("mine", retry_after=value))
    assert (type(found), found.detail, found.retry_after) == (RateLimited, "mine", None)


def test_a_programs_own_subclass_of_call_error_keeps_its_name():
    class OutOfStock(ProgramFailed):
        status = 409

        def __init__(self, article):
            super().__init__(f"{article} is out of stock")

    own = OutOfStock("tea")
    assert from_exception(ValueError()) is not own
    assert from_exception(own) is own
    # Code that Lambda's runtime client would run does not run: the error counts as its nearest known kind.
    OutOfStock.__str__ = lambda _: 1 / 0
    found = from_exception(own)
    assert (type(found), found.detail, found.status) == (ProgramFailed, "tea is out of stock", 409)


def test_a_bare_call_error_is_a_failed_program():
    found = from_exception(CallError("why"))
    assert (type(found), found.detail) == (ProgramFailed, "why")


async def _add_signal_handler():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        lambda: signal.set_wakeup_fd(-1),
        lambda: asyncio.run(_add_signal_handler()),
    ],
)
def test_a_program_that_needs_the_main_thread_is_told_so(refused):
    raised = []

    def run():
        try:
            refused()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    wrapped = KeyError()
    wrapped.__cause__ = raised[0]
    for error in (raised[0], wrapped):
        found = from_exception(error)
        assert type(found) is ProgramFailed
        assert "main thread" in found.detail
        assert "when the module is imported" in found.detail
    assert "main thread" not in from_exception(ValueError("only in the main thread")).detail


def test_a_missing_interpreter_is_explained_but_not_an_error_of_the_code_in_one():
    for error in (dspy.CodeInterpreterError("sk-secret"), KeyError()):
        error.__cause__ = dspy.CodeInterpreterError("sk-secret") if isinstance(error, KeyError) else None
        found = from_exception(error)
        assert type(found) is ProgramFailed
        assert "dspy[deno]" in found.detail
        assert "sk-secret" not in found.detail
    assert "deno" not in from_exception(dspy.CodeExecutionError("x")).detail


@pytest.mark.parametrize("fault", [MemoryError, RecursionError, SystemExit, KeyboardInterrupt])
def test_an_error_in_the_conversion_itself_is_a_failed_program(monkeypatch, fault):
    def fail(*_):
        raise fault

    monkeypatch.setattr(errors, "_judge", fail)
    first = from_exception(lm.LMRateLimitError())
    assert type(first) is ProgramFailed
    assert from_exception(lm.LMRateLimitError()) is not first
    monkeypatch.setattr(errors, "_failed", fail)
    for _ in range(3):
        spare = from_exception(lm.LMRateLimitError())
        assert_answerable(spare)
        assert (spare.__traceback__, spare.__cause__, spare.__context__) == (None, None, None)
        with pytest.raises(ProgramFailed):
            raise spare from ValueError()


def test_any_exception_becomes_a_call_error_at_the_recursion_limit():
    found = []

    def descend():
        try:
            descend()
        except RecursionError:
            return
        found.append(from_exception(ExceptionGroup("g", [ValueError()])))

    def room_for_a_call():
        return None

    def descend_to_the_end():
        room_for_a_call()
        found.append(from_exception(ExceptionGroup("g", [ValueError()])))
        descend_to_the_end()

    with pytest.raises(RecursionError):
        descend_to_the_end()
    descend()
    assert len(found) > 100
    assert {type(error) for error in found} == {ProgramFailed}


def test_any_exception_becomes_a_call_error_without_memory():
    pytest.importorskip("_testcapi")
    script = """if True:
        import _testcapi, gc
        from dspy_lambda.errors import CallError, from_exception
        import dspy.utils.exceptions as lm
        gc.disable()
        limited = lm.LMRateLimitError("x", retry_after=3)
        for raised in (limited, ValueError(), ExceptionGroup("g", [ValueError(), limited])):
            for start in range(150):
                for stop in (start + 1, start + 5, 0):
                    _testcapi.set_nomemory(start, stop)
                    found = from_exception(raised)
                    _testcapi.remove_mem_hooks()
                    assert isinstance(found, CallError)
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
