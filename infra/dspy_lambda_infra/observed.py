"""Finds the running `dspy-lambda local` of a project, which has recent traces and log lines.

Its observer answers at the address that `find` returns:

- `GET /traces/{id}`: `{"spans": [...]}`, OTLP spans in order of arrival, each with its `resource`; for a request id or
  an SQS message id that call's span and everything within it, for a trace id all of the trace. 404 if there are none.
- `GET /traces?limit=20`: the same for the most recent invocations, newest first, each one's first span only.
- `GET /lines?since=SECONDS&follow=true`: the functions' JSON log lines, oldest first, those of Lambda itself included.
  `since` is in seconds since the epoch. With `follow=true` the answer continues with each new line until it is closed.
- `POST /v1/traces`: OTLP/HTTP in JSON, for functions.
- `GET /`: `{"project": "..."}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

_ANSWER_SECONDS = 2.0
# Only this machine is asked: a proxy, which the environment may name, would not reach it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def publish(project_root: Path, address: str) -> Iterator[None]:
    """Let other commands of the same user find an observer's address during the `with` block.

    Raises:
        OSError: its file cannot be written; for example because another user has created one of that name.
    """
    file = _file(project_root)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = file.with_suffix(f".{os.getpid()}")
    own.unlink(missing_ok=True)
    with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(address)
    own.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file.read_text() == address:  # otherwise it is that of a local Lambda started later
                file.unlink()


def find(project_root: Path) -> str | None:
    """Return the address of the project's observer, without a slash at its end; None if there is none or it is gone."""
    file = _file(project_root)
    try:
        if not _is_own(file):
            return None
        address = file.read_text()
        with get(f"{address}/", _ANSWER_SECONDS) as answer:
            told = json.load(answer)
    except (OSError, ValueError):
        return None  # one that was killed left its file, and its port may be another server's now
    return address if told == {"project": str(project_root.resolve())} else None


def get(url: str, seconds: float | None = None) -> HTTPResponse:
    """Send GET to an observer.

    Args:
        seconds: how long to wait for it to send something; None waits without limit, as following lines requires.

    Raises:
        OSError: it does not answer; `urllib.error.HTTPError`, which is one, if it answers with an error.
    """
    answer: HTTPResponse = _opener.open(url, timeout=seconds)
    return answer


def _file(project_root: Path) -> Path:
    """https://specifications.freedesktop.org/basedir-spec/latest/"""
    name = hashlib.sha256(os.fsencode(project_root.resolve())).hexdigest()[:16]
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"dspy-lambda-{os.getuid()}-{name}")


def _is_own(path: Path) -> bool:
    """Whether a path belongs to this user: everybody can create files in the temporary folder."""
    return path.lstat().st_uid == os.getuid()
