"""Which parts of a program run code that a model writes in Deno, DSPy's default, and whether Deno is here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.primitives.code_interpreter import resolve_interpreter_factory

from dspy_lambda.dspy_patches.deno import deno_command

HOW_TO_GET_DENO = (
    "add dspy[deno] to the project's requirements (96 MB, with lambda.runtime python3.12 or later; lambda.package_type "
    "Image has room for more), or pass interpreter_factory to run the code elsewhere"
)


class MissingInterpreter(ImportError):
    """A program needs an interpreter that is not installed here."""


def check_interpreters(program: dspy.Module) -> None:
    """Refuse a program whose code could not be run: it would fail at a later step of a call that is already paid for.

    Raises:
        MissingInterpreter: names the part of the program, and the ways to get an interpreter.
    """
    for path, kind, command in uses_of_deno(program):
        if command is not None and shutil.which(command) is None:
            raise MissingInterpreter(f"{path} ({kind}) runs Python in Deno, which is not here: {HOW_TO_GET_DENO}")


def uses_of_deno(program: dspy.Module) -> Iterator[tuple[str, str, str | None]]:
    """Yield the parts of a program that use DSPy's `PythonInterpreter`: path, class and, if known, Deno's command.

    Interpreters that a program passes with a call are not visible here.
    """
    for path, module in program.named_sub_modules():
        for value in vars(module).values():
            if isinstance(value, dspy.PythonInterpreter):
                yield path, type(module).__name__, value.deno_command[0]
            # DSPy's modules hold the class itself if they got no factory; `dspy.configure` may name another default.
            elif _is_default(value):
                yield path, type(module).__name__, deno_command()


def _is_default(value: Any) -> bool:
    default = dspy.PythonInterpreter
    return value is default and resolve_interpreter_factory(value) is default
