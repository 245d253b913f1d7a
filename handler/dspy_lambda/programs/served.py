"""The programs that an environment serves, and the choice of the program for an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_lambda.errors import InvalidInput, ProgramFailed
from dspy_lambda.programs.program import FailedProgram, Program


@dataclass(frozen=True)
class Served:
    """Programs by name: those that were loaded, and those that could not be."""

    loaded: dict[str, Program]
    failed: dict[str, FailedProgram]

    def about(self) -> dict[str, Any]:
        """Describe the programs for the startup log line: how each is called and why, and why others failed."""
        about: dict[str, Any] = {
            "programs": {name: f"{_kind(p)}: {p.entry.why}" for name, p in self.loaded.items()},
            "failed": {name: p.error for name, p in self.failed.items()},
            "models": {name: p.model for name, p in self.loaded.items()},
        }
        if large := {name: p.copier.too_large for name, p in self.loaded.items() if p.copier.too_large}:
            about["too_large_to_copy"] = large
        return about

    def only(self) -> Program | FailedProgram | None:
        """Return the only program that this function serves, or None if it serves several."""
        known: list[Program | FailedProgram] = [*self.loaded.values(), *self.failed.values()]
        return known[0] if len(known) == 1 else None

    def choose(self, name: Any) -> Program | FailedProgram | None:
        """Return the program that an event or record names; without a name, the only program served."""
        if name is None:
            return self.only()
        return (self.loaded.get(name) or self.failed.get(name)) if isinstance(name, str) else None

    def require(self, name: Any, program: Program | FailedProgram | None) -> Program:
        """Return the program if it can be called.

        Args:
            name: its name in the event, or None.
            program: the result of `choose`.

        Raises:
            InvalidInput: There is no such program, or the event names none and several are served.
            ProgramFailed: The program could not be loaded.
        """
        if program is None:
            served = ", ".join(sorted([*self.loaded, *self.failed]))
            wrong = "The event names no program" if name is None else "This function serves no program of that name"
            raise InvalidInput(f"{wrong}; this function serves: {served}.", status=404)
        if isinstance(program, FailedProgram):
            failed = ProgramFailed("The program could not be loaded; see its state at /programs.", status=503)
            raise failed from program.cause
        return program


def _kind(program: Program) -> str:
    return "async" if program.entry.is_async else "sync"
