import shutil
import stat

import dspy
import pytest

from dspy_lambda.config import load_config
from dspy_lambda.programs.discovery import load_programs
from dspy_lambda.programs.interpreters import MissingInterpreter, check_interpreters
from tests.support import ECHO, RLM, Serve, problem


def program(inner):
    class Program(dspy.Module):
        def __init__(self):
            super().__init__()
            self.think = inner

        def forward(self, question: str):
            return self.think(question=question)

    return Program()


def look_up(key: str) -> str:
    return key


NEEDS_DENO = {
    "RLM": lambda **more: dspy.RLM("question -> answer", **more),
    "ProgramOfThought": lambda **more: dspy.ProgramOfThought("question -> answer", **more),
    "CodeAct": lambda **more: dspy.CodeAct("question -> answer", tools=[look_up], **more),
    "Flex": lambda **more: dspy.Flex("question -> answer", **more),
}


@pytest.fixture
def no_deno(monkeypatch, tmp_path):
    """An empty folder as the PATH; a test may put a `deno` there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("deno") is None
    return tmp_path


@pytest.mark.parametrize("kind", NEEDS_DENO)
def test_a_module_without_its_default_interpreter_is_refused_with_the_ways_to_get_one(no_deno, kind):
    with pytest.raises(MissingInterpreter) as raised:
        check_interpreters(program(NEEDS_DENO[kind]()))
    text = str(raised.value)
    assert text.startswith(f"self.think ({kind}) runs Python in Deno, which is not here")
    assert all(way in text for way in ("dspy[deno]", "Image", "interpreter_factory"))


@pytest.mark.parametrize("kind", NEEDS_DENO)
def test_a_module_with_an_interpreter_of_its_own_is_accepted(no_deno, kind):
    check_interpreters(program(NEEDS_DENO[kind](interpreter_factory=dspy.LocalInterpreter)))


def test_a_configured_default_interpreter_is_accepted(no_deno):
    with dspy.context(interpreter_factory=dspy.LocalInterpreter):
        check_interpreters(program(NEEDS_DENO["RLM"]()))


def test_deno_on_the_path_is_accepted(no_deno):
    deno = no_deno / "deno"
    deno.touch()
    deno.chmod(deno.stat().st_mode | stat.S_IXUSR)
    check_interpreters(program(NEEDS_DENO["RLM"]()))


def test_an_interpreter_with_its_own_command_is_looked_for_there(no_deno):
    made = program(dspy.Predict("question -> answer"))
    made.interpreter = dspy.PythonInterpreter(deno_command=["/nowhere/deno", "run"])
    with pytest.raises(MissingInterpreter):
        check_interpreters(made)


def test_such_a_program_is_listed_as_failed_and_the_others_are_served(no_deno, make_project, make_serve: Serve):
    serve = make_serve(make_project({"calculate": RLM, "echo": ECHO}))
    answer = serve.post("/Calculate", {"question": "1 + 1"})
    assert (answer.status, problem(answer)["detail"]) == (
        503,
        "The program could not be loaded; see its state at /programs.",
    )
    reason = serve.environment.failed["Calculate"].error
    assert "MissingInterpreter: self.think (RLM) runs Python in Deno" in reason
    assert serve.post("/Echo", {"question": "x"}).status == 200


def test_a_project_that_is_only_inspected_needs_no_interpreter(no_deno, make_project):
    project = make_project({"calculate": RLM})
    assert list(load_programs(project, load_config(project))[0]) == ["Calculate"]
