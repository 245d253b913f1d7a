"""Where spans come from: a file or stream of OTLP in JSON, the local Lambda, or CloudWatch."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol
from urllib.error import HTTPError
from urllib.parse import quote

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra import observed
from dspy_lambda_infra.logs.sources import NotRunning
from dspy_lambda_infra.traces.spans import INVOCATION_ID, Span, documents, spans
from dspy_lambda_infra.traces.tree import call, trace_id

_ANSWER_SECONDS = 10.0
_RECENT = 200
# "You can use CloudWatch Logs features on ... a log group called aws/spans".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Transaction-Search.html
_SPANS_GROUP = "aws/spans"
_DEFAULT_SECONDS = 3 * 3_600


class Source(Protocol):
    """Spans of many calls.

    Attributes:
        where: what was searched, for people.
    """

    where: str

    def find(self, name: str) -> list[Span]:
        """Return the spans of the call with that id; empty if there is none."""

    def recent(self) -> list[Span]:
        """Return the first spans of recent invocations, oldest first."""


class FileSource:
    """A file as the OpenTelemetry Collector's file exporter writes it; standard input is copied to one.

    It is read twice, so that only one call's spans are in memory.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, path: Path | None, stream: IO[bytes] | None = None) -> None:
        self.where = str(path) if path else "standard input"
        if stream is not None:
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this is
            shutil.copyfileobj(stream, self._file)
        elif path is not None:
            try:
                self._file = path.open("rb")
            except OSError as error:
                raise ConfigError(f"{path}: {error.strerror}.") from None

    def find(self, name: str) -> list[Span]:
        """Return the spans of the call with that id; empty if there is none."""
        wanted = {name, trace_id(name)}
        ids = {
            span.trace_id
            for span in self._read({name.encode(), trace_id(name).encode()})
            if span.trace_id in wanted or any(one.startswith(name) for one in span.ids)
        }
        whole = [span for span in self._read({one.encode() for one in ids}) if span.trace_id in ids] if ids else []
        return call(whole, name)

    def recent(self) -> list[Span]:
        """Return the first spans of recent invocations, oldest first."""
        found: list[Span] = []
        for span in self._read({INVOCATION_ID.encode()}):
            if span.is_invocation:
                found.append(span)
            if len(found) > 2 * _RECENT:
                found = _newest(found)
        return _newest(found)

    def _read(self, marks: set[bytes]) -> Iterator[Span]:
        """Yield the spans of all documents whose text contains one of the marks, in any case."""
        self._file.seek(0)
        for document in documents(iter(self._file), {mark.lower() for mark in marks}):
            yield from spans(document)


class LocalSource:
    """The project's running `dspy-lambda local`.

    Raises:
        NotRunning: there is none.
    """

    def __init__(self, project: Path) -> None:
        address = observed.find(project)
        if address is None:
            raise NotRunning(
                f"no local Lambda of {project.resolve()} is running; start one with `dspy-lambda local`, or name a "
                "file of spans with --file, or a deployed stack with --stack"
            )
        self._address = address
        self.where = f"the local Lambda of {project.resolve()}"

    def find(self, name: str) -> list[Span]:
        """Return the spans of the call with that id; empty if there is none."""
        found = self._get(f"traces/{quote(name, safe='')}")
        if not found:
            # Its route does not know correlation ids, nor ids that are cut.
            found = [
                span
                for first in call(self.recent(), name)
                for span in self._get(f"traces/{quote(str(first.attributes[INVOCATION_ID]), safe='')}")
            ]
        return found

    def recent(self) -> list[Span]:
        """Return the first spans of recent invocations, oldest first."""
        return _newest(self._get(f"traces?limit={_RECENT}"))

    def _get(self, path: str) -> list[Span]:
        try:
            with observed.get(f"{self._address}/{path}", _ANSWER_SECONDS) as answer:
                return list(spans(json.load(answer)))
        except HTTPError as error:
            if error.code == 404:
                return []
            raise NotRunning(f"{self.where} answers {error.code}") from None
        except (OSError, ValueError) as error:
            raise NotRunning(f"{self.where} does not answer: {error}") from None


class CloudWatchSource:
    """The log group where CloudWatch's Transaction Search keeps spans. Tested with an emulation of it only.

    Args:
        since: seconds since the epoch; None for three hours ago.

    Raises:
        CloudWatchUnavailable: it cannot be read.
    """

    def __init__(self, stack: str, region: str | None, since: float | None) -> None:
        from dspy_lambda_infra.cloudwatch import CloudWatch  # imported late: boto3

        self._cloudwatch = CloudWatch(region)
        self._functions = set(self._cloudwatch.functions(stack))
        self._since = time.time() - _DEFAULT_SECONDS if since is None else since
        begin = time.strftime("%Y-%m-%d %H:%M", time.localtime(self._since))
        self.where = f"the log group {_SPANS_GROUP} since {begin} (--since looks further back)"

    def find(self, name: str) -> list[Span]:
        """Return the spans of the call with that id; empty if there is none."""
        wanted = trace_id(name)
        found = self._read(wanted) or self._read(name)
        traces = {span.trace_id for span in found if span.trace_id == wanted or name in span.ids}
        return call((span for one in sorted(traces) for span in self._read(one)), name)

    def recent(self) -> list[Span]:
        """Return the first spans of the stack's recent invocations, oldest first."""
        found = self._read(INVOCATION_ID)
        return _newest(span for span in found if span.is_invocation and self._is_own(span))

    def _is_own(self, span: Span) -> bool:
        return span.resource.get("faas.name") in self._functions

    def _read(self, term: str) -> list[Span]:
        # A quoted term matches anywhere in an event.
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
        pattern = f'"{term.replace(chr(34), "")}"'
        events = self._cloudwatch.events([_SPANS_GROUP], pattern, self._since)
        texts = (event["message"].encode(errors="replace") for event in events)
        return [span for document in documents(texts) for span in spans(document)]


def _newest(found: Iterable[Span]) -> list[Span]:
    return sorted(found, key=lambda span: span.start_ns)[-_RECENT:]
