import json
import linecache
import subprocess
import sys
import time
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.errors import InvalidInput, ProgramFailed, RateLimited, cause_of
from dspy_lambda.telemetry.describe import describe
from tests.handler import hostile
from tests.support import unmeasured


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Program:
    def forward(self, depth):
        return self.forward(depth - 1) if depth else 1 / 0


def test_an_exception_is_described_by_its_name_and_last_8_frames_without_its_text():
    error = raised(lambda: Program().forward(20))
    described = describe(error)
    assert set(described) == {"exception_name", "stack"}
    assert described["exception_name"] == "ZeroDivisionError"
    line = Program.forward.__code__.co_firstlineno + 1
    assert described["stack"] == [f"{__file__}:{line} Program.forward"] * 8
    assert "zero" not in json.dumps(described)


def test_described_frames_match_the_traceback_module():
    error = raised(lambda: Program().forward(2))
    expected = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    assert [frame.rsplit(" ", 1)[0] for frame in describe(error)["stack"]] == expected


def test_an_exception_that_was_never_raised_has_no_stack():
    assert describe(ValueError("text")) == {"exception_name": "ValueError", "stack": []}


def test_any_exception_is_described_without_running_its_code():
    for name, make in hostile.ZOO.items():
        error = make()
        hostile.touched.clear()
        start = time.thread_time()  # which a busy machine does not change
        described = describe(error)
        assert time.thread_time() - start < 2, name
        assert not hostile.touched, name
        text = json.dumps(described, ensure_ascii=False)
        assert len(text.encode()) < 10_000, name
        assert hostile.SECRET not in text, name
        assert described["exception_name"] != "unknown", name


def test_a_long_traceback_is_described_quickly():
    error = hostile.ZOO["a traceback of 100,000 frames"]()
    start = time.thread_time()  # which a busy machine does not change
    assert len(describe(error)["stack"]) == 8
    assert time.thread_time() - start < 0.5


def test_describing_an_exception_reads_no_file_and_imports_nothing():
    linecache.clearcache()
    error = raised(lambda: Program().forward(1))
    # In a separate process, because an audit hook cannot be removed.
    script = """if True:
        import sys
        from dspy_lambda.errors import cause_of
        from dspy_lambda.telemetry.describe import describe
        try:
            {}[0]
        except KeyError as found:
            error = found
        events = []
        sys.addaudithook(lambda event, _: events.append(event))
        described = describe(error), cause_of(error)
        seen = list(events)
        assert not {"open", "import", "exec", "compile"} & set(seen), seen
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert describe(error)["stack"]
    assert not linecache.cache


def test_the_cause_of_a_failed_program_is_what_it_raised():
    reason = ValueError()
    failed = ProgramFailed("")
    failed.__cause__ = reason
    assert cause_of(failed) is reason
    assert cause_of(reason) is reason
    assert cause_of(None) is None


def test_an_error_whose_outcome_is_enough_has_no_cause():
    assert cause_of(InvalidInput("")) is None
    assert cause_of(RateLimited("")) is None
    failed = ProgramFailed("")
    assert cause_of(failed) is failed


def test_the_cause_of_any_exception_is_found_without_running_its_code():
    for name, make in hostile.ZOO.items():
        error = make()
        hostile.touched.clear()
        cause = cause_of(error)
        assert cause is None or type.__subclasscheck__(BaseException, type(cause)), name
        assert not hostile.touched, name


@given(st.lists(st.integers(0, 5), min_size=6, max_size=6))
def test_a_cycle_of_causes_is_followed_only_once(causes):
    errors = [ProgramFailed(""), RateLimited(""), ValueError(), InvalidInput(""), ProgramFailed(""), KeyError()]
    for error, cause in zip(errors, causes, strict=True):
        error.__cause__ = errors[cause]
    for error in errors:
        found = cause_of(error)
        assert found is None or found in errors


@pytest.mark.parametrize("function", [describe, cause_of])
def test_exceptions_are_described_at_the_recursion_limit(function):
    error = raised(lambda: Program().forward(10))
    found = []

    def room():
        return None

    def descend():
        room()
        found.append(function(error))
        descend()

    with pytest.raises(RecursionError):
        descend()
    assert len(found) > 100
    assert {type(one) for one in found} <= {dict, ZeroDivisionError}


def test_exceptions_are_described_without_memory():
    pytest.importorskip("_testcapi")
    script = """if True:
        import _testcapi, gc
        from dspy_lambda.errors import ProgramFailed
        from dspy_lambda.errors import cause_of
        from dspy_lambda.telemetry.describe import describe
        gc.disable()
        try:
            try:
                {}[0]
            except KeyError as error:
                raise ProgramFailed("") from error
        except ProgramFailed as error:
            failed = error
        for function in (describe, cause_of):
            for start in range(150):
                for stop in (start + 1, start + 5, 0):
                    _testcapi.set_nomemory(start, stop)
                    found = function(failed)
                    _testcapi.remove_mem_hooks()
                    assert found is not None
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
