"""Where log lines come from: a stream, a file, the local Lambda or CloudWatch."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra import observed
from dspy_lambda_infra.logs.records import MESSAGES
from dspy_lambda_infra.unavailable import Unavailable

# "Maximum log event size: 1 MB".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
MAX_LINE = 2**20
_POLL_SECONDS = 0.3
_CONNECT_SECONDS = 5.0
_DEFAULT_SECONDS = 3_600
_HINT_SECONDS = 1.0


class NotRunning(Unavailable):
    """No local Lambda of the project is running; the text says what to do."""


def stdin_is_piped() -> bool:
    """Whether something was piped or redirected to standard input; not if it is a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def hint_at_idle_stdin(stream: BinaryIO, seconds: float = _HINT_SECONDS) -> None:
    """Say on standard error what is awaited, if nothing comes from standard input within so many seconds.

    Some runners leave a pipe open that nobody writes to.
    """
    try:
        ready, _, _ = select.select([stream], [], [], seconds)
    except (OSError, ValueError):  # a stream without a file
        return
    if not ready:
        hint = "waiting for standard input; name a file, or read the running `dspy-lambda local` with < /dev/null"
        print(f"dspy-lambda: {hint}", file=sys.stderr, flush=True)


def split(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream's lines; of one longer than 1 MB its beginning, which is no valid JSON."""
    while line := stream.readline(MAX_LINE):
        yield line
        while line and not line.endswith(b"\n"):  # the rest of it
            line = stream.readline(MAX_LINE)


def from_file(path: Path, *, follow: bool = False, pause: Callable[[float], None] = time.sleep) -> Iterator[bytes]:
    """Yield a file's lines, and with `follow` those that are added later, also if the file is replaced or emptied.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not follow:
                yield from split(file)
                return
            yield from _growing(path, file, pause)
        yield from from_file(path, follow=True, pause=pause)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None


def _growing(path: Path, file: BinaryIO, pause: Callable[[float], None]) -> Iterator[bytes]:
    """Yield lines until the file is replaced or emptied."""
    unfinished = b""
    while True:
        for part in iter(lambda: file.readline(MAX_LINE), b""):
            unfinished += part
            if unfinished.endswith(b"\n"):
                yield unfinished[:MAX_LINE]
                unfinished = b""
            unfinished = unfinished[: MAX_LINE + 1]
        pause(_POLL_SECONDS)
        there = path.stat()
        mine = os.fstat(file.fileno())
        if (there.st_ino, there.st_dev) != (mine.st_ino, mine.st_dev) or there.st_size < file.tell():
            return


def from_local(project: Path, *, follow: bool, since: float | None) -> Iterator[bytes]:
    """Yield the lines of the project's running `dspy-lambda local`; with `follow` until it stops.

    Raises:
        NotRunning: there is none.
    """
    address = observed.find(project)
    if address is None:
        raise NotRunning(
            f"no local Lambda of {project.resolve()} is running; start one with `dspy-lambda local`, or name a FILE, "
            "- for standard input, or a deployed stack with --stack"
        )
    url = f"{address}/lines?since={since or 0}&follow={'true' if follow else 'false'}"
    try:
        with observed.get(url, None if follow else _CONNECT_SECONDS) as answer:
            yield from split(answer)
    except OSError as error:
        if not follow:
            raise NotRunning(f"the local Lambda at {address} does not answer: {error}") from None


def from_cloudwatch(
    stack: str, region: str | None, *, follow: bool, since: float | None, until: float | None, all_lines: bool
) -> Iterator[bytes]:
    """Yield the lines of a deployed stack's functions, by default of the last hour.

    Args:
        all_lines: whether to read other lines than records too, which takes longer.

    Raises:
        CloudWatchUnavailable: they cannot be read.
    """
    from dspy_lambda_infra.cloudwatch import CloudWatch  # imported late: boto3

    cloudwatch = CloudWatch(region)
    groups = list(cloudwatch.functions(stack).values())
    pattern = None if all_lines else " ".join(f'?"{message}"' for message in MESSAGES)
    start = time.time() - _DEFAULT_SECONDS if since is None else since
    new = cloudwatch.follow(groups, pattern, start) if follow else cloudwatch.events(groups, pattern, start, until)
    for event in new:
        yield event["message"].encode(errors="replace")[:MAX_LINE]
