import gc
import json
import subprocess
import sys
import threading
import types
import warnings

import pytest

from dspy_lambda.telemetry import hooks
from dspy_lambda.telemetry.exceptions import Exceptions
from tests.handler import hostile

SECRET = hostile.SECRET


class Lines(list):
    """A log function, and the lines that it received."""

    def __call__(self, level, message, fields):
        self.append({"level": level, "message": message, **fields})


@pytest.fixture
def make_lines():
    """Install the hooks with a log and Python's default warning filters; restore pytest's hooks afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")

        def make(lines=None, **options):
            lines = Lines() if lines is None else lines
            hooks.install(lines, **options)
            return lines

        yield make
        gc.collect()
        hooks.restore()


@pytest.fixture
def lines(make_lines, capfd):
    yield make_lines()
    assert capfd.readouterr() == ("", "")


def run_in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def fail():
    raise ValueError(SECRET)


class Finalized:
    def __del__(self):
        fail()


async def never_awaited():
    """A coroutine that is never awaited."""


def test_a_thread_that_dies_is_one_line_by_kind_and_place(lines):
    run_in_thread(fail)
    (line,) = lines
    assert (line["level"], line["message"]) == ("ERROR", "unhandled exception in a thread")
    assert line["exception_name"] == "ValueError"
    assert line["stack"][-1] == f"{__file__}:{fail.__code__.co_firstlineno + 1} fail"
    assert set(line) == {"level", "message", "exception_name", "stack"}


@pytest.mark.parametrize("error", [SystemExit(), SystemExit(SECRET)])
def test_a_thread_that_exits_is_silent(lines, error):
    def leave():
        raise error

    run_in_thread(leave)
    assert lines == []


def test_a_finalizer_that_raises_is_one_line(lines):
    Finalized()
    gc.collect()
    (line,) = lines
    assert (line["level"], line["message"]) == ("WARNING", "exception ignored by Python")
    assert line["exception_name"] == "ValueError"
    assert line["stack"][0].endswith("Finalized.__del__")
    assert SECRET not in json.dumps(line)


def test_an_ignored_exception_without_a_value_is_logged_by_its_class(lines):
    about = types.SimpleNamespace(exc_type=KeyError, exc_value=None, exc_traceback=None, err_msg=SECRET, object=lines)
    sys.unraisablehook(about)
    assert [line["exception_name"] for line in lines] == ["KeyError"]


def test_a_coroutine_that_was_never_awaited_is_one_line(lines):
    never_awaited()
    gc.collect()
    (line,) = lines
    assert (line["level"], line["message"], line["warning_name"]) == ("WARNING", "Python warning", "RuntimeWarning")
    file, number = line["place"].rsplit(":", 1)
    assert file == __file__
    assert int(number) > 0


def test_a_warning_raised_as_an_error_is_one_line(lines):
    warnings.simplefilter("error")
    never_awaited()
    gc.collect()
    assert [line["exception_name"] for line in lines] == ["RuntimeWarning"]


def test_a_warnings_text_stays_private(lines):
    warnings.warn(SECRET, stacklevel=1)
    (line,) = lines
    assert line["warning_name"] == "UserWarning"
    assert set(line) == {"level", "message", "warning_name", "place"}
    assert SECRET not in json.dumps(line)


def test_with_private_logging_the_text_is_a_field(make_lines):
    lines = make_lines(text=Exceptions().text)
    run_in_thread(fail)
    Finalized()
    gc.collect()
    warnings.warn(SECRET, stacklevel=1)
    dead, ignored, warned = lines
    assert (dead["exception"], ignored["exception"], warned["warning"]) == (SECRET, SECRET, SECRET)


def test_a_key_is_redacted_in_every_text(make_lines):
    exceptions = Exceptions()
    exceptions.redact([SECRET])
    lines = make_lines(text=exceptions.text)
    run_in_thread(fail)
    warnings.warn(SECRET, stacklevel=1)
    assert [lines[0]["exception"], lines[1]["warning"]] == ["(a key)"] * 2


def test_an_exception_whose_text_cannot_be_read_is_logged_without_it(make_lines, capfd):
    lines = make_lines(text=Exceptions().text)
    die_of(hostile.ZOO["ValueError with __str__"]())
    (line,) = lines
    assert (line["exception_name"], line["exception"]) == ("Hostile", "unknown")
    assert capfd.readouterr().err == ""


def die_of(error):
    threading.excepthook(threading.ExceptHookArgs((type(error), error, None, None)))


def ignore(error):
    sys.unraisablehook(
        types.SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=None, err_msg=None, object=error)
    )


@pytest.mark.parametrize("hook", [die_of, ignore])
def test_any_exception_is_one_line_without_running_its_code(lines, hook):
    for name, make in hostile.ZOO.items():
        error = make()
        hostile.touched.clear()
        lines.clear()
        hook(error)
        assert len(lines) == (type(error) is not SystemExit or hook is ignore), name
        assert SECRET not in json.dumps(lines, ensure_ascii=False), name
        assert not hostile.touched, name


@pytest.mark.parametrize(
    "name", ["ValueError with __getattribute__", "Exception, metaclass with __eq__", "BaseException with __str__"]
)
def test_a_thread_that_dies_of_a_hostile_exception_is_one_line(lines, name):
    def die():
        raise hostile.ZOO[name]()

    run_in_thread(die)
    assert [line["exception_name"] for line in lines] == ["Hostile"]


def test_a_warning_is_logged_once_for_each_category_file_and_line(lines):
    warnings.simplefilter("always")
    for _ in range(3):
        warnings.warn(SECRET, stacklevel=1)
        warnings.warn(SECRET, FutureWarning, stacklevel=1)
    for number in (1, 2, 1, 2):
        warnings.warn_explicit(f"text {number}", UserWarning, "f.py", number)
    warnings.warn_explicit("text", UserWarning, "g.py", 1)
    assert [line["warning_name"] for line in lines[:2]] == ["UserWarning", "FutureWarning"]
    assert [line["place"] for line in lines[2:]] == ["f.py:1", "f.py:2", "g.py:1"]


def test_threads_that_warn_at_once_log_one_line(lines):
    warnings.simplefilter("always")
    barrier = threading.Barrier(8)

    def warn():
        barrier.wait()
        for number in range(200):
            warnings.warn_explicit("text", UserWarning, "f.py", number)

    threads = [threading.Thread(target=warn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["place"] for line in lines) == sorted(f"f.py:{number}" for number in range(200))


def test_the_number_of_remembered_warnings_and_of_their_lines_is_bounded(lines):
    warnings.simplefilter("always")
    for number in range(1500):
        warnings.warn_explicit("text", UserWarning, "generated.py", number)
    assert len(lines) == 1001
    assert lines[-1] == {"level": "WARNING", "message": "further Python warnings are not logged", "places": 1000}


@pytest.mark.parametrize(
    ("category", "file", "line"),
    [
        (hostile.Text("x"), hostile.Text("f.py"), hostile.Number(1)),
        (None, None, None),
        (type("\N{SNOWMAN}" * 10_000, (Warning,), {}), "\udc80" * 10_000, 10**5000),
    ],
    ids=["hostile", "none", "long"],
)
def test_a_malformed_warning_is_one_line(lines, category, file, line):
    hostile.touched.clear()
    for _ in range(2):
        warnings.showwarning(hostile.ZOO["ValueError with __str__"](), category, file, line)
    assert len(lines) == 1
    assert len(json.dumps(lines, ensure_ascii=False).encode()) < 10_000
    assert not hostile.touched


@pytest.mark.parametrize("fault", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
def test_a_log_that_raises_is_silent(make_lines, capfd, fault):
    def log(*_):
        raise fault(SECRET)

    make_lines(log)
    run_in_thread(fail)
    Finalized()
    gc.collect()
    warnings.warn(SECRET, stacklevel=1)
    assert capfd.readouterr() == ("", "")


def test_exceptions_caused_by_logging_are_not_logged(make_lines, capfd):
    class Careless(Lines):
        def __call__(self, level, message, fields):
            super().__call__(level, message, fields)
            warnings.warn(SECRET, stacklevel=1)
            Finalized()
            gc.collect()

    lines = make_lines(Careless())
    run_in_thread(fail)
    Finalized()
    gc.collect()
    assert [line["exception_name"] for line in lines] == ["ValueError", "ValueError"]
    assert capfd.readouterr() == ("", "")


def test_one_threads_log_does_not_silence_another(make_lines):
    class Slow(Lines):
        def __call__(self, level, message, fields):
            if not self:
                super().__call__(level, message, fields)
                run_in_thread(fail)
            else:
                super().__call__(level, message, fields)

    lines = make_lines(Slow())
    run_in_thread(fail)
    assert len(lines) == 2


def test_the_previous_hooks_are_restored():
    former = threading.excepthook, sys.unraisablehook, warnings.showwarning
    for _ in range(2):
        hooks.install(Lines())
    assert threading.excepthook is not former[0]
    for _ in range(2):
        hooks.restore()
    assert (threading.excepthook, sys.unraisablehook, warnings.showwarning) == former


def test_a_process_writes_json_lines_only_and_nothing_to_standard_error():
    script = f"""if True:
        import _thread, gc, json, sys, threading, time, warnings
        from dspy_lambda.telemetry import hooks
        hooks.install(lambda level, message, fields: print(json.dumps([level, message, fields]), flush=True))

        def fail(*_):
            raise ValueError({SECRET!r})

        async def never_awaited():
            pass

        class Finalized:
            __del__ = fail

        class Exit(SystemExit):
            pass

        def leave():
            raise Exit({SECRET!r})

        for target in (fail, leave, sys.exit):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        threads, begun = _thread._count(), threading.Event()
        _thread.start_new_thread(lambda: begun.set() or fail(), ())
        begun.wait()
        while _thread._count() > threads:
            time.sleep(0.01)
        Finalized()
        never_awaited()
        warnings.warn({SECRET!r}, stacklevel=1)
        at_exit = Finalized()
        cycle = [Finalized()]
        cycle.append(cycle)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    kinds = [
        fields.get("exception_name") or fields["warning_name"]
        for _, _, fields in map(json.loads, done.stdout.splitlines())
    ]
    assert kinds[:6] == ["ValueError", "Exit", "ValueError", "ValueError", "RuntimeWarning", "UserWarning"]
    assert set(kinds[6:]) <= {"ValueError"}
