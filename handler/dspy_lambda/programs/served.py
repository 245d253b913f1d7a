"""The programs that an environment serves: which one an event is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_lambda.errors import InvalidInput, ProgramFailed
from dspy_lambda.programs.program import FailedProgram, Program


@dataclass(frozen=True)
class Served:
    """Programs by name: those that can be called, and those that could not be loaded."""

    loaded: dict[str, Program]
    failed: dict[str, FailedProgram]

    def only(self) -> Program | FailedProgram | None:
        """The one program that this function serves, or None if it serves several."""
        known: list[Program | FailedProgram] = [*self.loaded.values(), *self.failed.values()]
        return known[0] if len(known) == 1 else None

    def choose(self, name: Any) -> Program | FailedProgram | None:
        """The program that an event or a record is for; without a name, the one that this function serves."""
        if name is None:
            return self.only()
        return (self.loaded.get(name) or self.failed.get(name)) if isinstance(name, str) else None

    def require(self, name: Any, program: Program | FailedProgram | None) -> Program:
        """The program, if it can be called.

        Args:
            name: what the event calls it, or None.
            program: the one that was chosen.

        Raises:
            InvalidInput: no such program here, or none named and several served.
            ProgramFailed: it could not be loaded.
        """
        if program is None:
            served = ", ".join(sorted([*self.loaded, *self.failed]))
            wrong = "No program is named" if name is None else "This function serves no program of that name"
            raise InvalidInput(f"{wrong}; it serves: {served}.", status=404)
        if isinstance(program, FailedProgram):
            failed = ProgramFailed("The program could not be loaded; its state is under /programs.", status=503)
            raise failed from program.cause
        return program
