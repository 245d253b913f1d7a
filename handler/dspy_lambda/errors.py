"""Every way a call can end badly: its outcome in the log, its HTTP status, its name for Step Functions.

The texts below are all that a caller ever reads. None of them carries the text of an exception that this
package did not write: a provider's message may quote a key, a traceback may quote an input.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dspy_lambda.dspy_patches import raised_by_parallel


class ConfigError(Exception):
    """The project cannot be served. The text names the file, the key or line, and what to do."""


class UnknownEvent(Exception):
    """No event source recognises the event that this function was invoked with."""


class CallError(Exception):
    """One call of a program failed.

    Args:
        detail: what happened, for the caller.
        status: the HTTP status, where it is not the class's own.
        retry_after: seconds after which a retry makes sense, where known.
        errors: for inputs that do not fit, one `{"loc", "msg", "type"}` for each misfit.
    """

    outcome: ClassVar[str]
    title: ClassVar[str]
    status: int

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors
        if status is not None:
            self.status = status


class InvalidInput(CallError):
    """The request is not one that the program can be called with."""

    outcome, title, status = "invalid_input", "Invalid input", 422


class RateLimited(CallError):
    """The model's provider limits the rate."""

    outcome, title, status = "rate_limited", "Rate limited", 429


class Overloaded(CallError):
    """This process is at its limit (`serve` only: on Lambda, reserved concurrency is the limit)."""

    outcome, title, status = "overloaded", "Overloaded", 429


class ModelUnavailable(CallError):
    """The provider failed, refused, or gave an answer that no adapter could parse."""

    outcome, title, status = "model_error", "Model unavailable", 502


class DeadlineExceeded(CallError):
    """The call's deadline came before its answer."""

    outcome, title, status = "deadline", "Deadline exceeded", 504


class ProgramFailed(CallError):
    """The program raised, or could not be loaded (then 503)."""

    outcome, title, status = "program_error", "Program failed", 500


def from_exception(error: BaseException, lm_error: Exception | None = None) -> CallError:
    """The CallError for whatever a program raised; DSPy's typed exceptions keep their meaning.

    Args:
        error: what left the program, perhaps wrapped: in an exception group, or by `raise ... from`.
        lm_error: the last failure of an LM call within this call. `dspy.Parallel` raises a bare Exception that
            chains nothing, so there this is all that is left of the reason.

    Source: dspy/utils/exceptions.py (DSPy 3.4).
    """
    if isinstance(error, CallError):
        return error
    known = _from_dspy(error)
    if known is not None:
        return known
    if isinstance(error, BaseExceptionGroup):
        found = [from_exception(inner, lm_error) for inner in error.exceptions]
        return found[0] if len({type(inner) for inner in found}) == 1 else _failed()
    if error.__cause__ is not None:
        return from_exception(error.__cause__, lm_error)
    if lm_error is not None and raised_by_parallel(error.__traceback__):
        return _from_dspy(lm_error) or _failed()
    return _failed()


def _failed() -> ProgramFailed:
    return ProgramFailed("The program raised an exception; its log record has this request id.")


def _from_dspy(error: BaseException) -> CallError | None:
    from dspy.utils import exceptions as lm

    if isinstance(error, lm.LMRateLimitError):
        return RateLimited("The model's provider limits the rate.", retry_after=error.retry_after)
    if isinstance(error, lm.LMAuthError | lm.LMBillingError | lm.LMUnsupportedModelError | lm.LMConfigurationError):
        return ModelUnavailable("The model's provider refused the key, the billing or the model.")
    if isinstance(error, lm.LMError):
        return ModelUnavailable("The model's provider did not give an answer.")
    if isinstance(error, lm.AdapterParseError):
        return ModelUnavailable("The model's answer could not be parsed into the program's outputs.")
    return None
