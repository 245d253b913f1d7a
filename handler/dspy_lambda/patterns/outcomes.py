"""What a fan-out gives: the answers, and why the others failed, without the text of any exception."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from dspy_lambda.errors import CallError, DeadlineExceeded, from_exception
from dspy_lambda.telemetry.describe import describe

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
_NAMED = 10  # failures that an error names


@dataclass(frozen=True)
class Failure:
    """Why one of the calls failed. All of it is safe to log and to answer with: no input, no answer, no key.

    Attributes:
        error: what a call of dspy-lambda would have failed with because of this.
        message: what happened.
        exception_name: the class of the exception; None if the call was cut off.
        stack: where it was raised, as `file:line function`.
    """

    error: CallError = field(repr=False, compare=False)
    message: str
    exception_name: str | None = None
    stack: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """As `outcome` in log records: rate_limited, overloaded, model_error, deadline, program_error, ..."""
        return self.error.outcome

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @classmethod
    def of(cls, raised: BaseException) -> Self:
        """Describe an exception."""
        error, about = from_exception(raised), describe(raised)
        name: str = about["exception_name"]
        # The usual detail is meant for the caller of the whole program.
        message = f"It raised {name}." if error.detail == CallError.detail else error.detail
        return cls(error, message, name, tuple(about["stack"]))

    @classmethod
    def cut_off(cls, *, started: bool) -> Self:
        """Describe a call that was not done in time."""
        message = "It was still running at the deadline." if started else "The deadline passed before it could start."
        return cls(DeadlineExceeded(message), message)


class TooFewAnswers(Exception):
    """Fewer calls succeeded than required; the message names the failures.

    Its cause is the error that dspy-lambda answers with: a transient one if the calls that failed so could make up for
    what is missing, so that a queue's record comes back.
    """


@dataclass(frozen=True)
class Outcomes(Generic[K, T]):
    """The answers and failures of a fan-out, both in the order of the calls.

    Attributes:
        answers: by the key of the module or the inputs; by position if they came as a sequence.
        failures: by the same keys.
    """

    answers: dict[K, T]
    failures: dict[K, Failure]

    def require(self, least: int | None = None) -> Self:
        """Return these outcomes if at least this many calls succeeded; by default, all.

        Raises:
            TooFewAnswers: Fewer did.
        """
        wanted = len(self.answers) + len(self.failures) if least is None else least
        if len(self.answers) >= wanted:
            return self
        raise TooFewAnswers(self._explain(wanted)) from self._cause(wanted)

    def _explain(self, wanted: int) -> str:
        failures = list(self.failures.items())
        named = "; ".join(f"{key}: {failure}" for key, failure in failures[:_NAMED])
        more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        total = len(self.answers) + len(failures)
        return f"{len(self.answers)} of {total} calls succeeded, {wanted} are required. {named}{more}"

    def _cause(self, wanted: int) -> CallError | None:
        errors = [failure.error for failure in self.failures.values()]
        temporary = [error for error in errors if error.temporary]
        lasting = [error for error in errors if not error.temporary]
        may_succeed_later = len(self.answers) + len(temporary) >= wanted
        return next(iter(temporary if may_succeed_later else lasting), None)


class Tally(Generic[K, T]):
    """Collects what the calls of one fan-out come to. Threads that end late may still add to it."""

    def __init__(self, keys: Iterable[K]) -> None:
        self._keys = list(keys)
        self._started: set[K] = set()
        self._answers: dict[K, T] = {}
        self._failures: dict[K, Failure] = {}

    def start(self, key: K) -> None:
        self._started.add(key)

    def answer(self, key: K, answer: T) -> None:
        self._answers[key] = answer

    def fail(self, key: K, error: BaseException) -> None:
        self._failures[key] = Failure.of(error)

    def outcomes(self) -> Outcomes[K, T]:
        """Return what there is by now; what has not ended counts as cut off."""
        answers, failures = dict(self._answers), dict(self._failures)
        for key in self._keys:
            if key not in answers and key not in failures:
                failures[key] = Failure.cut_off(started=key in self._started)
        return Outcomes(_ordered(self._keys, answers), _ordered(self._keys, failures))


V = TypeVar("V")


def _ordered(keys: Iterable[K], values: Mapping[K, V]) -> dict[K, V]:
    return {key: values[key] for key in keys if key in values}
