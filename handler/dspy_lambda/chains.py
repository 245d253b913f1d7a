"""Follow exceptions to their origin: along causes, into groups, down a traceback. Never recurses.

Exceptions form a graph, not a tree: `raise e from e` makes a cycle, and a member shared by several groups counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from dspy_lambda.introspection import direct_cause_of, is_a, members_of

Meaning = TypeVar("Meaning")
# Follow at most this many, so that any exception is classified within milliseconds.
LINKS = 1000


def chain_ends(
    error: BaseException, meaning: Callable[[BaseException], Meaning | None]
) -> list[tuple[BaseException, Meaning | None]]:
    """Return the ends of all chains that begin at an exception, depth first, each with its meaning.

    A chain ends at an exception that has a meaning itself, or that has neither cause nor members. A cycle has no end.
    At most `LINKS` exceptions are visited.
    """
    ends: list[tuple[BaseException, Meaning | None]] = []
    pending, seen = [error], set[int]()
    while pending and len(seen) < LINKS:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        found = meaning(link)
        further = () if found is not None else _further(link)
        if not further:
            ends.append((link, found))
        pending.extend(further[:LINKS][::-1])
    return ends


def _further(error: BaseException) -> tuple[BaseException, ...]:
    if is_a(error, BaseExceptionGroup):
        return members_of(error)
    cause = direct_cause_of(error)
    return () if cause is None else (cause,)


def innermost(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback's last entry, where the exception was raised; None if the traceback is too long."""
    for _ in range(LINKS):
        if traceback is None or traceback.tb_next is None:
            return traceback
        traceback = traceback.tb_next
    return None
