"""Follow an exception to what it stands for: along causes, into groups, down a traceback. Never recurses.

Exceptions form a graph, not a tree: `raise e from e` makes a cycle, and groups that share a member stand for it once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from dspy_lambda.introspection import direct_cause_of, is_a, members_of

Meaning = TypeVar("Meaning")
# Nothing is followed further than this: what a call raised is judged in milliseconds, whatever it is.
LINKS = 1000


def ends_of(
    error: BaseException, meaning: Callable[[BaseException], Meaning | None]
) -> list[tuple[BaseException, Meaning | None]]:
    """Where the chains that begin at an exception end, depth first, each with its meaning.

    A chain ends at an exception with a meaning of its own, or at one that has no cause and no members. A cycle has no
    end. Of more than `LINKS` exceptions the rest is left out.
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
    """The traceback's last entry, where the exception was raised; None for one that is too long to look for it."""
    for _ in range(LINKS):
        if traceback is None or traceback.tb_next is None:
            return traceback
        traceback = traceback.tb_next
    return None
