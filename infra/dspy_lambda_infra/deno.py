"""Finds programs that run Python in Deno, as `dspy.RLM`, `dspy.ProgramOfThought` and `dspy.CodeAct` do by default."""

from __future__ import annotations

from dspy_lambda.programs.interpreters import uses_of_deno
from dspy_lambda.programs.program import Program

# Where Deno caches the imports of DSPy's runner.js, which it fetches on the first call: only /tmp is writable.
VARIABLES = {"DENO_DIR": "/tmp/deno"}  # noqa: S108


def why_deno(program: Program) -> str | None:
    """Return the part of a program that uses DSPy's `PythonInterpreter`; None if no use is visible from here."""
    for path, kind, _ in uses_of_deno(program.instance):
        return f"{program.name}{path.removeprefix('self')} ({kind})"
    return None
