"""Keeps the most recent items of a stream, and lets readers follow it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Recent(Generic[Item]):
    """The most recent items, up to a number and a size. For one event loop.

    Args:
        most: the maximum number of items.
        max_bytes: the maximum of the sizes' sum.
    """

    def __init__(self, most: int, max_bytes: int) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._ended = 0  # the number of items that were ever added
        self._added = asyncio.Event()

    def add(self, item: Item, size: int) -> None:
        """Add an item of a size in bytes, and drop the oldest ones that are too many."""
        self._items.append((item, size))
        self._bytes += size
        self._ended += 1
        while len(self._items) > self._most or (self._bytes > self._max_bytes and len(self._items) > 1):
            self._bytes -= self._items.popleft()[1]
        self._added.set()
        self._added = asyncio.Event()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items, oldest first."""
        return (item for item, _ in self._items)

    def __reversed__(self) -> Iterator[Item]:
        """Yield the items, newest first."""
        return (item for item, _ in reversed(self._items))

    async def follow(self) -> AsyncIterator[Item]:
        """Yield the items and all later ones. A reader that is too slow misses those that were dropped meanwhile."""
        seen = 0
        while True:
            added = self._added
            first = self._ended - len(self._items)
            new = list(self)[max(seen - first, 0) :]
            seen = self._ended
            for item in new:
                yield item
            if seen == self._ended:
                await added.wait()
