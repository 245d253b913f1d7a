"""The lines that programs themselves print or log, kept until their call's record shows whether they are wanted."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from dspy_lambda_infra.logs.records import call_key

# Calls that never end, such as those of a killed process, must not keep theirs.
_MAX_CALLS = 1_000
_MAX_LINES = 200  # of one call


class OwnLines:
    """Lines of calls that are still running, by request id and message id; at most 200 for each of 1,000 calls."""

    def __init__(self) -> None:
        self._calls: OrderedDict[tuple[str, str], list[tuple[dict[str, Any], bytes]]] = OrderedDict()
        self.dropped = 0

    def add(self, found: dict[str, Any], line: bytes) -> bool:
        """Keep an entry and its line; return False if it does not belong to any request."""
        key = call_key(found)
        if not key[0] or "_aws" in found:  # metrics
            return False
        kept = self._calls.setdefault(key, [])
        if len(kept) < _MAX_LINES:
            kept.append((found, line))
        else:
            self.dropped += 1
        if len(self._calls) > _MAX_CALLS:
            self.dropped += len(self._calls.popitem(last=False)[1])
        return True

    def take(self, request_id: str, message_id: str) -> list[tuple[dict[str, Any], bytes]]:
        """Return a call's lines, oldest first, and those of its invocation that belong to no call in particular."""
        whole = self._calls.pop((request_id, ""), []) if message_id else []
        return whole + self._calls.pop((request_id, message_id), [])
