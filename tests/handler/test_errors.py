import dspy
import pytest
from dspy.utils import exceptions as lm

from handler.errors import InvalidInput, ModelUnavailable, ProgramFailed, RateLimited, from_exception


@pytest.mark.parametrize(
    ("raised", "error", "status"),
    [
        (lm.LMRateLimitError("sk-secret", retry_after=7), RateLimited, 429),
        (lm.LMAuthError("sk-secret"), ModelUnavailable, 502),
        (lm.LMBillingError("sk-secret"), ModelUnavailable, 502),
        (lm.LMUnsupportedModelError("sk-secret"), ModelUnavailable, 502),
        (lm.LMNotConfiguredError("sk-secret"), ModelUnavailable, 502),
        (lm.LMServerError("sk-secret"), ModelUnavailable, 502),
        (lm.LMTransportError("sk-secret"), ModelUnavailable, 502),
        (lm.LMTimeoutError("sk-secret"), ModelUnavailable, 502),
        (lm.LMUnexpectedError("sk-secret"), ModelUnavailable, 502),
        (lm.ContextWindowExceededError(message="sk-secret"), ModelUnavailable, 502),
        (lm.AdapterParseError("a", dspy.Signature("a -> b"), "sk-secret"), ModelUnavailable, 502),
        (ValueError("sk-secret"), ProgramFailed, 500),
        (KeyError("sk-secret"), ProgramFailed, 500),
    ],
)
def test_what_a_program_raises_becomes_the_tables_error_without_its_text(raised, error, status):
    found = from_exception(raised)
    assert type(found) is error
    assert found.status == status
    assert "sk-secret" not in f"{found} {found.title}"


def test_retry_after_is_kept_and_own_errors_pass():
    assert from_exception(lm.LMRateLimitError("", retry_after=7)).retry_after == 7
    own = InvalidInput("no")
    assert from_exception(own) is own


def test_every_typed_lm_error_of_this_dspy_is_a_model_error_or_a_rate_limit():
    kinds = [kind for kind in vars(lm).values() if isinstance(kind, type) and issubclass(kind, lm.LMError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert from_exception(kind()).outcome in ("model_error", "rate_limited")
