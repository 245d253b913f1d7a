"""Which records were running when an execution environment died, for the process that follows it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

_SIZE = 1 << 20  # more than 10,000 messageIds; a sparse file
_HEADER = struct.Struct("<II")  # records of the batch under way, bytes of their identifiers
_WAITING, _RUNNING = 0, 1


class Journal:
    """Notes what runs in a memory-mapped file, which outlives the process for the price of one byte written.

    "The reset does not clear the /tmp directory content prior to the next init phase."
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

    Args:
        folder: where its two files are.

    Attributes:
        died_with: the identifiers of the records that were running when the process before this one died.

    Raises:
        OSError: the folder cannot be written to, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._kept = folder / "suspects.json"
        self._file = open(os.open(folder / "running", os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115
        # Of this process alone (flock's would go to its forks as well): gone when it is.
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Not a sparse file: on a full disk a write into a hole of it would end the process.
        os.posix_fallocate(self._file.fileno(), 0, _SIZE)
        self._map = mmap.mmap(self._file.fileno(), _SIZE)
        self.died_with = self._read()
        self.end()

    def _read(self) -> list[str]:
        count, size = _HEADER.unpack_from(self._map)
        at = _HEADER.size
        if not 0 < count <= size < _SIZE - at - count:
            return []
        states = self._map[at : at + count]
        identifiers = self._map[at + count : at + count + size].decode(errors="replace").split("\n")
        return [name for state, name in zip(states, identifiers, strict=False) if state == _RUNNING and name]

    def begin(self, identifiers: list[str]) -> Callable[[int, bool], None] | None:
        """Note a batch; what to call with a record's position when it starts (True) and when it has ended (False).

        None where the batch is too large to be noted.
        """
        names = "\n".join(identifiers).encode()
        count, at = len(identifiers), _HEADER.size
        if at + count + len(names) >= _SIZE:
            return None
        self._map[at : at + count + len(names)] = bytes(count) + names
        _HEADER.pack_into(self._map, 0, count, max(len(names), count))

        def mark(position: int, running: bool) -> None:
            self._map[at + position] = _RUNNING if running else _WAITING

        return mark

    def end(self) -> None:
        """The batch is over."""
        _HEADER.pack_into(self._map, 0, 0, 0)

    def load(self) -> dict[str, int]:
        """What `keep` kept last."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = json.loads(self._kept.read_bytes())
            if isinstance(found, dict):
                return {str(name): int(alone) for name, alone in found.items()}
        return {}

    def keep(self, suspects: Mapping[str, int]) -> None:
        """Keep the suspects for a process to come; on a full disk they are not kept."""
        with contextlib.suppress(OSError):
            beside = self._kept.with_suffix(".new")
            beside.write_text(json.dumps(dict(suspects)))
            beside.replace(self._kept)
