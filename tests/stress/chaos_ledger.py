"""The fate of each message of a chaos run, counted from files, log lines and queues.

A run of a program is named by its message and its invocation's request id; the program sends both to the model, so
that each model request belongs to one run.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from tests.stress.chaos import GROUPS, Chaos

Run = tuple[str, str]  # message, request id
# The longest time between a message's receipt and its invocation.
_HANDED_OVER_SECONDS = 0.1
_DONE = ("again", "visibility")
# What the kernel and faulthandler write about a process that is killed; Lambda's log has the latter, too.
_OF_A_KILL = ("Killed", "Thread 0x", "Current thread 0x", "  File ", "  Garbage-collecting", "  ...")


@dataclass
class Request:
    """One request to the model: its fate as the model server drew it, and whether the answer was sent in full."""

    fate: str
    sent: bool = False


@dataclass
class Invocation:
    """One invocation as Lambda reports it: from the receipt of its event, including init, to its answer or its end."""

    began: float
    ended: float
    error: str | None


class Ledger:
    """The observations of a chaos run.

    Attributes:
        asked: the model requests of each run.
        begun, ended: when each run of a program started and ended.
        outcomes: of each run, from the log.
        invocations: by request id.
        not_json: lines that are not JSON, except those written about a kill.
    """

    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.asked: dict[Run, list[Request]] = defaultdict(list)
        self.begun: dict[Run, float] = {}
        self.ended: dict[Run, float] = {}
        self.outcomes: dict[Run, str] = {}
        self.invocations: dict[str, Invocation] = {}
        self.messages: Counter[str] = Counter()
        self.not_json: list[str] = []
        self._read_model()
        self._read_runs()
        self._read_lines()

    def _read_model(self) -> None:
        requests: dict[str, Request] = {}
        for line in self.chaos.model.path.read_text().splitlines():
            what, number, message, request_id, _ = line.split()
            if what in ("sent", "unsent"):
                requests[number].sent = what == "sent"
            else:
                requests[number] = Request(what)
                self.asked[message, request_id].append(requests[number])

    def _read_runs(self) -> None:
        for line in self.chaos.runs.read_text().splitlines():
            what, message, request_id, at = line.split()
            (self.begun if what == "begin" else self.ended)[message, request_id] = float(at)

    def _read_lines(self) -> None:
        for at, text in self.chaos.lines:
            try:
                self._note(at, json.loads(text))
            except ValueError:
                if text and not text.startswith(_OF_A_KILL):
                    self.not_json.append(text)

    def _note(self, at: float, line: dict[str, Any]) -> None:
        if line.get("message") == "program call":
            message = self.chaos.sent[line["message_id"]]
            self.outcomes[message, line["function_request_id"]] = line["outcome"]
        elif line.get("type") == "platform.report":
            record = line["record"]
            took = sum(record["metrics"].values()) / 1000
            self.invocations[record["requestId"]] = Invocation(at - took, at, record.get("errorType"))
        self.messages[line.get("message") or line.get("type") or "metrics"] += 1

    @property
    def died(self) -> set[str]:
        """The invocations that ended with their process or at their timeout."""
        return {request_id for request_id, invocation in self.invocations.items() if invocation.error}

    @property
    def lost(self) -> int:
        """Messages whose program never finished, and messages left in any queue."""
        ended = {message for message, _ in self.ended}
        return len(set(self.chaos.sent.values()) - ended) + self.chaos.left

    @property
    def out_of_order(self) -> int:
        """Messages of a group that first finished before the one ahead of them."""
        first: dict[str, float] = {}
        for (message, _), at in sorted(self.ended.items(), key=lambda item: item[1]):
            first.setdefault(message, at)
        count = sum(name.startswith("Ordered-") for name in self.chaos.sent.values())
        return sum(first[f"Ordered-{n}"] > first[f"Ordered-{n + GROUPS}"] for n in range(count - GROUPS))

    def done_twice(self) -> list[Run]:
        """Runs whose success is in the log, whose invocation then died, and whose message ran again."""
        last: dict[str, float] = {}
        for (message, _), at in self.begun.items():
            last[message] = max(at, last.get(message, 0))
        succeeded = (run for run, outcome in self.outcomes.items() if outcome == "success")
        return [run for run in succeeded if run[1] in self.died and last[run[0]] > self.begun[run]]

    def extra_requests(self) -> Counter[str]:
        """Return the causes of extra model requests, one for each request beyond the first of a message.

        - `kill`: the process of its run was killed, before or after the answer.
        - `timeout`: the same by Lambda's own kill at the timeout.
        - `model`: it was not answered in full: an error, a restart, a reset, or too slow.
        - `model, late`: it was answered, but after so much trouble within its run that the deadline came first.
        - `deadline`: it was answered, without any trouble, and yet too late.
        - `visibility`: its run succeeded, but by then the message had been received again: the batch took longer than
          the visibility timeout, a cold start included.
        - `again`: its run succeeded, and the message was received again after its batch had been answered.
        """
        causes: Counter[str] = Counter()
        by_message: dict[str, list[Run]] = defaultdict(list)
        for run in self.asked:
            by_message[run[0]].append(run)
        for runs in by_message.values():
            found = Counter(self._cause(run, request) for run in runs for request in self.asked[run])
            # One was needed: that of the run that counted or, if its record was deleted by then, of the one that died.
            found[next(cause for cause in (*_DONE, "kill", "timeout") if found[cause])] -= 1
            causes += found
        return causes

    def _cause(self, run: Run, request: Request) -> str:
        if run[1] in self.died:
            return "kill" if self.invocations[run[1]].error == "Runtime.ExitError" else "timeout"
        if not request.sent:
            return "model"
        if self.outcomes.get(run) != "success":
            troubled = any(other.fate != "answer" or not other.sent for other in self.asked[run])
            return "model, late" if troubled else "deadline"
        if request is not self.asked[run][-1]:
            return "model"
        return "visibility" if self._was_received_again(run) else "again"

    def _was_received_again(self, run: Run) -> bool:
        """Whether a run's message was received again before its invocation had been answered."""
        identifier = next(key for key, message in self.chaos.sent.items() if message == run[0])
        invocation = self.invocations[run[1]]
        since = invocation.began + _HANDED_OVER_SECONDS
        return any(since < at < invocation.ended for at, name in self.chaos.received if name == identifier)
