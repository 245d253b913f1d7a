import dspy
import pytest
from dspy.utils import exceptions as lm

from dspy_lambda.errors import InvalidInput, ModelUnavailable, ProgramFailed, RateLimited, from_exception


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


def test_a_wrapped_reason_is_still_the_reason():
    limited = lm.LMRateLimitError("", retry_after=3)
    assert from_exception(ExceptionGroup("g", [limited, limited])).retry_after == 3
    assert type(from_exception(ExceptionGroup("g", [limited, ValueError()]))) is ProgramFailed
    wrapped = ValueError("mine")
    wrapped.__cause__ = limited
    assert type(from_exception(wrapped)) is RateLimited
    assert type(from_exception(ValueError(), limited)) is ProgramFailed


def test_faults_inside_a_task_group_and_parallel_keep_their_names(make_project, make_serve, models):
    source = """
    import asyncio
    class Group(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        async def aforward(self, question: str):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(self.predict.acall(question=question))
    class Fan(Group):
        def forward(self, question: str):
            pairs = [(self.predict, {"question": "q"})] * 3
            dspy.Parallel(num_threads=2, max_errors=1, disable_progress_bar=True)(pairs)
    """
    serve = make_serve(make_project({"fan": source}))
    for fault, status in (({"rate_limit_rate": 1, "retry_after_seconds": 0}, 429), ({"unauthorized_rate": 1}, 502)):
        models.behave(**fault)
        assert [serve.post(f"/{name}", {"question": "q"}).status for name in ("Group", "Fan")] == [status] * 2
