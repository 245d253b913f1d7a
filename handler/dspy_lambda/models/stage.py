"""The part of an LM call that one model of a fallback list answers, and why it goes on to the next one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any

from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMStreamAssemblyError,
    LMTimeoutError,
    LMTransportError,
)

from dspy_lambda.config.schema import FallbackReason
from dspy_lambda.errors import DeadlineExceeded

# The codes of refused prompts: OpenAI's, and Azure's inner and outer one.
# https://learn.microsoft.com/en-us/azure/ai-foundry/openai/concepts/content-filter
_FILTERED_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}


class ContentFiltered(LMInvalidRequestError):  # type: ignore[misc]
    """An answer that the provider's content filter stopped. Only a model with a next one raises it."""

    default_code = "content_filter"


def reason_of(error: BaseException) -> FallbackReason | None:
    """Return the reason for a fallback that a failed LM call is; None if another model would not help either."""
    if isinstance(error, LMRateLimitError):
        return "rate_limit"
    if isinstance(error, DeadlineExceeded | LMTimeoutError):
        return "timeout"
    if isinstance(error, LMServerError | LMTransportError | LMStreamAssemblyError) or _is_no_answer(error):
        return "outage"
    if isinstance(error, ContextWindowExceededError):
        return "context_window"
    if isinstance(error, ContentFiltered) or _is_refusal(error):
        return "content_filter"
    return None


def _is_no_answer(error: BaseException) -> bool:
    """Whether a provider's answer cannot be read, such as a gateway's page in HTML: DSPy has no class for that."""
    return type(error) is LMProviderError and not 400 <= (getattr(error, "status", None) or 0) < 500


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, LMInvalidRequestError) and str(error.provider_code).lower() in _FILTERED_CODES


class Stage:
    """One model's part of an LM call, if another model is next.

    Args:
        reasons: the failures after which the next one is asked.
        can_go_on: whether it still can: not after the deadline, nor once a part of the answer was streamed.
    """

    __slots__ = ("_can_go_on", "_reasons")

    def __init__(self, reasons: Collection[FallbackReason], can_go_on: Callable[[], bool]) -> None:
        self._reasons = reasons
        self._can_go_on = can_go_on

    def reason(self, error: BaseException) -> FallbackReason | None:
        """Return why the next model is asked after this error; None if it is not."""
        reason = reason_of(error)
        return reason if reason in self._reasons and self._can_go_on() else None

    def skips_pause(self, error: BaseException, asked: float, usual: float) -> bool:
        """Whether to ask the next model instead of pausing for a retry.

        Args:
            asked: the pause that the provider asks for, in seconds; 0 if it does not.
            usual: the pause if it does not ask for any.
        """
        reason = self.reason(error)
        return reason == "rate_limit" or (reason is not None and asked > usual)

    def check_answer(self, entry: dict[str, Any]) -> None:
        """Refuse an answer, by its history entry, that a content filter stopped.

        Raises:
            ContentFiltered: The next model is asked instead.
        """
        if "content_filter" in self._reasons and _is_filtered(entry.get("response")) and self._can_go_on():
            raise ContentFiltered("The provider's content filter stopped the answer.", model=entry.get("model"))


def _is_filtered(response: Any) -> bool:
    """Whether any candidate was stopped: DSPy keeps lm15's responses in a tuple, and LiteLLM has a list of choices."""
    if isinstance(response, tuple | list):
        return any(map(_is_filtered, response))
    if _read(response, "finish_reason") == "content_filter":
        return True
    choices = _read(response, "choices")
    return isinstance(choices, list) and any(_read(one, "finish_reason") == "content_filter" for one in choices)


def _read(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


# None if the LM that is called has no next one.
STAGE: ContextVar[Stage | None] = ContextVar("dspy_lambda_stage", default=None)
