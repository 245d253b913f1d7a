"""Which programs run Python in Deno, as `dspy.RLM`, `dspy.ProgramOfThought` and `dspy.CodeAct` do by default."""

from __future__ import annotations

from dspy.primitives.python_interpreter import PythonInterpreter

from dspy_lambda.programs.program import Program

# Where Deno puts what it fetches at its first call, the imports of DSPy's runner.js: only /tmp can be written to.
VARIABLES = {"DENO_DIR": "/tmp/deno"}  # noqa: S108


def why_deno(program: Program) -> str | None:
    """The part of a program that DSPy's `PythonInterpreter` runs for; None if there is none to be seen from here."""
    for path, module in program.instance.named_sub_modules():
        for value in vars(module).values():
            if value is PythonInterpreter or isinstance(value, PythonInterpreter):
                return f"{program.name}{path.removeprefix('self')} ({type(module).__name__})"
    return None
