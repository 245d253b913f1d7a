"""Count what the LM calls of one program call used: tokens, cost and cache hits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dspy_lambda.errors import DeadlineExceeded

_MOST = 2**53  # of tokens or USD in one answer: what is above is no figure, and JSON would not keep it


@dataclass(frozen=True)
class Answer:
    """One LM call, answered or abandoned, or embeddings, which are no LM call. `cost_usd` is None if it is unknown."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    cache_hit: bool = False
    abandoned: bool = False
    lm_calls: int = 1

    @property
    def unpriced(self) -> bool:
        return self.cost_usd is None

    def fields(self) -> dict[str, Any]:
        if self.abandoned:
            return {"lm_calls": 0, "lm_calls_abandoned": 1}
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 10),
            "lm_calls": self.lm_calls,
            "cache_hits": int(self.cache_hit),
        }


class Usage:
    """Totals of the LM calls that were answered before their program call was settled.

    `cost_usd` is None as soon as any answer's cost is unknown: a partial sum is not a bill.

    Args:
        late: called with each answer that is read after `close`.

    Attributes:
        abandoned: requests that were unanswered when the call was settled and whose tasks are then canceled. Their
            tokens cannot be known.
        fallbacks: how often an LM call went on to another model after a failure.
        retries: how often a request was repeated after a failure.
        unpriced: answers whose cost is unknown.
    """

    def __init__(self, late: Callable[[Answer], None] | None = None) -> None:
        self.lm_calls = 0
        self.cache_hits = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_usd: float | None = 0.0
        self.abandoned = 0
        self.fallbacks = 0
        self.retries = 0
        self.unpriced = 0
        self._late = late
        self._closed = False
        self._awaited = 0
        # One program call may run LM calls in several threads (dspy.Parallel). Reentrant because the garbage collector
        # may run finalizers while the lock is held; otherwise only code in this file does.
        self._lock = threading.RLock()

    def add(self, entry: dict[str, Any]) -> Answer:
        """Count one answered LM call by its DSPy history entry."""
        return self._add(read_answer(entry))

    def add_failed(self, entries: list[dict[str, Any]]) -> Answer:
        """Count the answers of an LM call that finally failed as one; each is given as a history entry."""
        answers = [read_answer(entry) for entry in entries]
        costs = [answer.cost_usd for answer in answers if answer.cost_usd is not None]
        return self._add(
            Answer(
                sum(answer.input_tokens for answer in answers),
                sum(answer.output_tokens for answer in answers),
                sum(costs) if len(costs) == len(answers) else None,
            )
        )

    def add_embeddings(self, input_tokens: int, cost_usd: float | None) -> Answer:
        """Count an answered request for embeddings; the cost is None if it is unknown."""
        return self._add(Answer(input_tokens, cost_usd=cost_usd, lm_calls=0))

    def _add(self, answer: Answer) -> Answer:
        with self._lock:
            late = self._closed
            if not late:
                self._count(answer)
        if late and self._late is not None:
            self._late(answer)
        return answer

    def _count(self, answer: Answer) -> None:
        self.lm_calls += answer.lm_calls
        self.cache_hits += answer.cache_hit
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens
        cost, total = answer.cost_usd, self.cost_usd
        self.unpriced += answer.unpriced
        self.cost_usd = None if cost is None or total is None else total + cost

    def forget_cost(self) -> None:
        """Mark the cost as unknown: something may have been billed."""
        with self._lock:
            if not self._closed:
                self.cost_usd = None
                self.unpriced += 1

    def fell_back(self) -> None:
        """Count one fallback to another model."""
        with self._lock:
            self.fallbacks += not self._closed

    def retried(self) -> None:
        """Count one repeated request."""
        with self._lock:
            self.retries += not self._closed

    def close(self) -> None:
        """Close the totals; any later answer is late."""
        with self._lock:
            self._closed = True
            self.abandoned += self._awaited

    def awaiting(self, *, on_loop: bool) -> Request:
        """Return a context for one request, which counts as abandoned if it ends before its answer is read."""
        return Request(self, on_loop)

    def begin_request(self, on_loop: bool) -> None:
        with self._lock:
            self._awaited += on_loop

    def end_request(self, on_loop: bool, abandoned: bool) -> None:
        with self._lock:
            self._awaited -= on_loop
            late = self._closed
            self.abandoned += abandoned and not late
        if abandoned and late and not on_loop and self._late is not None:
            self._late(Answer(abandoned=True))

    def fields(self) -> dict[str, Any]:
        """Return the totals as fields of a log record."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 10),
            "lm_calls": self.lm_calls,
            "cache_hits": self.cache_hits,
        }


class Request:
    """One request to a provider.

    A request on the loop is canceled, and counted, when its call is settled. A request in a thread ends shortly after
    its deadline, and gets a separate late record.
    """

    __slots__ = ("_on_loop", "_usage")

    def __init__(self, usage: Usage, on_loop: bool) -> None:
        self._usage = usage
        self._on_loop = on_loop

    def __enter__(self) -> None:
        self._usage.begin_request(self._on_loop)

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        abandoned = isinstance(error, asyncio.CancelledError)
        if isinstance(error, DeadlineExceeded):
            abandoned = error.request_abandoned
        self._usage.end_request(self._on_loop, abandoned)


def read_answer(entry: dict[str, Any]) -> Answer:
    """Read the usage from a history entry; an entry written by a program's own LM may hold anything."""
    usage = entry.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    if not usage and _reports_usage(entry.get("response")):
        # A cache hit: DSPy empties `usage`, keeps the first call's `cost`, and keeps the response with the
        # provider's figures.
        return Answer(cache_hit=True)
    cost = entry.get("cost") if usage else None
    # For the Responses API through LiteLLM, DSPy keeps the provider's field names.
    return Answer(
        int(_number(usage.get("prompt_tokens") or usage.get("input_tokens")) or 0),
        int(_number(usage.get("completion_tokens") or usage.get("output_tokens")) or 0),
        _number(cost),
    )


def _number(figure: Any) -> float | None:
    """Return a figure, or None for what is none; an integer may be too large for a float."""
    if not isinstance(figure, int | float) or not 0 <= figure <= _MOST:
        return None
    return figure


def _reports_usage(response: Any) -> bool:
    usage = response.get("usage") if isinstance(response, dict) else getattr(response, "usage", None)
    if usage is None:
        return False
    figures = (
        usage if isinstance(usage, dict) else {k: getattr(usage, k, None) for k in ("input_tokens", "prompt_tokens")}
    )
    return any(isinstance(figure, int) for figure in figures.values())
