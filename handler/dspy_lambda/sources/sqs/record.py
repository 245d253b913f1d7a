"""Read one record of an SQS batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_lambda.call import UNKNOWN
from dspy_lambda.environment import Environment
from dspy_lambda.errors import InvalidInput
from dspy_lambda.payload import read_json
from dspy_lambda.programs.program import FailedProgram, Program
from dspy_lambda.sources.sqs.attributes import body_of, group_of, identifier_of, receive_count


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        position: its position in the batch.
        identifier: its messageId; empty if it has none in ASCII. Reporting an empty one makes Lambda return the whole
            batch, so that nothing is lost.
        group: the FIFO message group whose order it is in, or None.
        name: the program that its body names, or None.
        program: the program that it is for, or None if this function does not serve it.
        error: why its body cannot be read, or None.
        raw: the record as it was received.
    """

    position: int
    identifier: str
    group: str | None
    name: str | None = None
    program: Program | FailedProgram | None = None
    inputs: Any = None
    error: InvalidInput | None = None
    raw: Any = None

    @property
    def label(self) -> str:
        """The program's name in logs and metrics."""
        return self.program.name if self.program else UNKNOWN

    @property
    def receive_count(self) -> int:
        """How often SQS has delivered it, including this time."""
        return receive_count(self.raw)


def read_record(environment: Environment, position: int, raw: Any) -> Record:
    """Read a record of the event, whatever it holds.

    A body with exactly the keys `program` and `inputs` names its program; any other object is the bare inputs.
    """
    identifier, group = identifier_of(raw), group_of(raw)
    only = environment.served.only()
    try:
        value = _body(raw)
    except InvalidInput as error:
        return Record(position, identifier, group, program=only, error=error, raw=raw)
    if set(value) == {"program", "inputs"} and isinstance(value["program"], str) and isinstance(value["inputs"], dict):
        name = value["program"]
        return Record(position, identifier, group, name, environment.served.choose(name), value["inputs"], raw=raw)
    return Record(position, identifier, group, None, only, value, raw=raw)


def _body(raw: Any) -> dict[str, Any]:
    body = body_of(raw)
    if body is None:
        raise InvalidInput("The record has no body.")
    value = read_json(body)
    if not isinstance(value, dict):
        raise InvalidInput("The record's body is not a JSON object.")
    return value
