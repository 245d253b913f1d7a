"""The errors of a call: each has an outcome for the log, an HTTP status and a name for Step Functions.

Callers see only the messages in this package. None of them includes the message of another exception: a provider's
message may quote a key, and a traceback may quote an input.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar, cast

from dspy_lambda.chains import LINKS, chain_ends, innermost
from dspy_lambda.dspy_patches.insides import raised_by_parallel
from dspy_lambda.introspection import arguments_of, attribute_of, direct_cause_of, is_a, traceback_of
from dspy_lambda.soundness import normalized, wait_seconds

_RAISED = "The program raised an exception; its log record has this request id."
INVALID_INPUTS = "The inputs do not fit the program: "  # followed by each field and the reason
_MAIN_THREAD = (
    "The program sets a signal handler, which requires the main thread, but calls do not run there: "
    "set the handler when the module is imported."
)
_NO_INTERPRETER = (
    "The program's code interpreter failed. DSPy's interpreter needs Deno, which \"dspy[deno]\" installs; "
    "set interpreter_factory to use another one."
)


class ConfigError(Exception):
    """The project cannot be served. The message names the file, the key or line, and what to do."""


class UnknownEvent(Exception):
    """No event source recognizes the event that this function was invoked with."""


class CallError(Exception):
    """One call of a program failed.

    Args:
        detail: what happened, for the caller.
        status: the HTTP status, if it differs from the class's.
        retry_after: seconds after which to retry, if known.
        errors: for invalid inputs, one `{"loc", "msg", "type"}` for each validation error.
        temporary: whether the same call may succeed later, if that differs from the class's.
    """

    outcome: ClassVar[str]
    title: ClassVar[str]
    status: int
    temporary: bool = True
    # Defaults for an instance that was created without `__init__`.
    detail: str = _RAISED
    retry_after: float | None = None
    errors: list[dict[str, Any]] | None = None

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        errors: list[dict[str, Any]] | None = None,
        temporary: bool | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors
        if status is not None:
            self.status = status
        if temporary is not None:
            self.temporary = temporary


class InvalidInput(CallError):
    """The program cannot be called with this request."""

    outcome, title, status = "invalid_input", "Invalid input", 422
    temporary = False


class RateLimited(CallError):
    """The model's provider limited the rate."""

    outcome, title, status = "rate_limited", "Rate limited", 429


class Overloaded(CallError):
    """This process reached its own limit: a model's requests or tokens per minute or, in `serve`, a program's slots."""

    outcome, title, status = "overloaded", "Overloaded", 429


class ModelUnavailable(CallError):
    """The provider failed, refused the request, or gave an answer that no adapter could parse."""

    outcome, title, status = "model_error", "Model unavailable", 502


class DeadlineExceeded(CallError):
    """The call's deadline passed before it was answered.

    Attributes:
        request_abandoned: whether a model request was in flight: it is billed, but its tokens cannot be known.
    """

    request_abandoned = False

    outcome, title, status = "deadline", "Deadline exceeded", 504


class ProgramFailed(CallError):
    """The program raised an exception, or could not be loaded (then the status is 503)."""

    outcome, title, status = "program_error", "Program failed", 500
    temporary = False


class OutputTooLarge(ProgramFailed):
    """The program's outputs exceed the response limit of Lambda or of a load balancer."""

    title = "Output too large"


_KINDS = (InvalidInput, RateLimited, Overloaded, ModelUnavailable, DeadlineExceeded, OutputTooLarge, ProgramFailed)
# Created in advance for when no object can be created: out of memory, or at the recursion limit.
_SPARE = ProgramFailed(_RAISED)


def with_detail(error: CallError, detail: str) -> CallError:
    """Copy an error with another message, bypassing its class's `__init__`, which a program may have defined."""
    again: CallError = Exception.__new__(type(error), detail)
    CallError.__init__(
        again,
        detail,
        status=error.status,
        retry_after=error.retry_after,
        errors=error.errors,
        temporary=error.temporary,
    )
    return again


def from_exception(error: BaseException, lm_error: Exception | None = None) -> CallError:
    """Convert whatever a program raised to a CallError. Never raises, and never runs code of the exception's class.

    DSPy's typed exceptions and CallErrors keep their meaning. Any other exception takes the meaning of its cause, or
    that of a group's members if they all have the same kind.

    Args:
        error: the program's exception, perhaps wrapped in an exception group or by `raise ... from`.
        lm_error: the last failure of an LM call within this call. `dspy.Parallel` raises a bare Exception without a
            cause, so this is the only information about the reason.

    Source: dspy/utils/exceptions.py (DSPy 3.4).
    """
    try:
        return _judge(error, lm_error)
    except BaseException:
        try:
            return _failed()
        except BaseException:
            # Calls nothing. Without the reset, its traceback would grow each time it is raised.
            _SPARE.__traceback__ = _SPARE.__cause__ = _SPARE.__context__ = None
            return _SPARE


def cut_off() -> DeadlineExceeded:
    """Return the error of a call that was still running at its deadline."""
    return DeadlineExceeded("The deadline passed before the answer was ready.")


def cause_of(raised: BaseException | None) -> BaseException | None:
    """Return the exception that a failed call's record describes; None if the outcome is enough. Never raises.

    Compare the result with None: an exception may define `__bool__`.
    """
    try:
        error = raised
        for _ in range(LINKS):  # a cycle of CallErrors ends here
            if error is None or not is_a(error, CallError):
                return error
            cause = direct_cause_of(error)
            if cause is None:
                break
            error = cause
        return error if is_a(error, ProgramFailed) else None
    except BaseException:
        return raised


def _judge(error: BaseException, lm_error: Exception | None) -> CallError:
    first: CallError | None = None
    for end, meaning in chain_ends(error, _meaning):
        found = _without_cause(end, lm_error) if meaning is None else meaning
        if first is None:
            first = found
        elif type(found) is not type(first):
            return _failed()
    return _failed() if first is None else first


def _meaning(error: BaseException) -> CallError | None:
    """Return the meaning of an exception itself; None if it depends on its cause or members."""
    if is_a(error, CallError):
        return normalized(cast(CallError, error), _KINDS)
    if _needs_main_thread(error):
        return ProgramFailed(_MAIN_THREAD)
    if _is_of_interpreter(error):
        return ProgramFailed(_NO_INTERPRETER)
    return _from_dspy(error)


def _without_cause(error: BaseException, lm_error: Exception | None) -> CallError:
    if lm_error is None or not raised_by_parallel(innermost(traceback_of(error))):
        return _failed()
    meaning = _from_dspy(lm_error)
    return _failed() if meaning is None else meaning


def _failed() -> ProgramFailed:
    return ProgramFailed(_RAISED)


def _from_dspy(error: BaseException) -> CallError | None:
    lm = sys.modules.get("dspy.utils.exceptions")
    if lm is None:  # the module was never imported, so none of its exceptions was raised
        return None
    limits = sys.modules.get("dspy_lambda.limits")
    if limits is not None and is_a(error, limits.ProcessLimitReached):
        retry_after = wait_seconds(attribute_of(error, "retry_after"))
        return Overloaded("This process has reached its own limit for the model.", retry_after=retry_after)
    if is_a(error, lm.LMRateLimitError):
        retry_after = wait_seconds(attribute_of(error, "retry_after"))
        return RateLimited("The model's provider limits the rate.", retry_after=retry_after)
    if is_a(error, lm.LMAuthError, lm.LMBillingError, lm.LMUnsupportedModelError, lm.LMConfigurationError):
        return ModelUnavailable("The model's provider refused the key, the billing or the model.")
    if is_a(error, lm.LMError):
        is_refused = is_a(error, lm.LMInvalidRequestError, lm.LMUnsupportedFeatureError)
        return ModelUnavailable("The model's provider did not give an answer.", temporary=not is_refused)
    if is_a(error, lm.AdapterParseError):
        return ModelUnavailable("The model's answer could not be parsed into the program's outputs.", temporary=False)
    return None


def _is_of_interpreter(error: BaseException) -> bool:
    """Whether a code interpreter could not start or crashed, as opposed to the code in it raising."""
    interpreter = sys.modules.get("dspy.primitives.code_interpreter")
    if interpreter is None or is_a(error, interpreter.CodeExecutionError):
        return False
    return is_a(error, interpreter.CodeInterpreterError)


def _needs_main_thread(error: BaseException) -> bool:
    """Whether CPython refused a signal handler; asyncio repeats the ValueError's message in a RuntimeError.

    Source: Modules/signalmodule.c and Lib/asyncio/unix_events.py, Python 3.11 to 3.13.
    """
    if type(error) is not ValueError and type(error) is not RuntimeError:
        return False
    arguments = arguments_of(error)
    prefixes = ("signal only works in main thread", "set_wakeup_fd only works in main thread")
    return bool(arguments) and type(arguments[0]) is str and arguments[0].startswith(prefixes)
