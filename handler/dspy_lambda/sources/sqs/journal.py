"""What became of a batch's records when its execution environment died, for the process that follows it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

# More than there is in an event, which has at most 6 MB.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_SIZE = 8 << 20
_HEADER = struct.Struct("<II")  # records of the batch under way, bytes of their notes
_STATES = {"waiting": 0, "running": 1, "done": 2}
# What it takes to delete a record.
Note = dict[str, str]
_NOTED = ("messageId", "receiptHandle", "eventSourceARN")


class Journal:
    """Notes what runs in a memory-mapped file, which outlives the process for the price of one byte written.

    "The reset does not clear the /tmp directory content prior to the next init phase."
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

    Args:
        folder: where its two files are.

    Attributes:
        died_with: the identifiers of the records that were running when the process before this one died.
        done: the records that were done by then, and that died with their batch all the same. Noted with each batch
            from now on, until they are taken off.

    Raises:
        OSError: the folder cannot be written to, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = folder / "suspects.json"
        self._file, self._map, self._inode = _open(folder)
        notes = self._read()
        self.died_with = [note["messageId"] for state, note in notes if state == _STATES["running"]]
        self.done = [note for state, note in notes if state == _STATES["done"] and len(note) == len(_NOTED)]
        self.begin([])

    def _read(self) -> list[tuple[int, Note]]:
        count, size = _HEADER.unpack_from(self._map)
        at = _HEADER.size
        if not 0 < count <= size < _SIZE - at - count:
            return []
        states = self._map[at : at + count]
        try:
            notes = json.loads(self._map[at + count : at + count + size])
        except (ValueError, RecursionError):
            return []
        if not isinstance(notes, list):
            return []
        return [(state, note) for state, note in zip(states, map(_note, notes), strict=False) if note]

    def begin(self, records: list[Any]) -> Callable[[int, str], None] | None:
        """Note a batch; what to call with a record's position and its state: `running`, then `waiting` or `done`.

        None where the batch is too large to be noted, or a program has removed the file and it cannot be made again.
        """
        if self._is_removed():
            try:
                self._file, self._map, self._inode = _open(self._folder)
            except OSError:
                return None
        notes = [_note(record) for record in records] + self.done
        states = bytes(len(records)) + bytes([_STATES["done"]]) * len(self.done)
        text = json.dumps(notes, separators=(",", ":")).encode()
        count, at = len(notes), _HEADER.size
        if at + count + len(text) >= _SIZE:
            return None
        # First the header: torn, it is read as nothing.
        _HEADER.pack_into(self._map, 0, 0, 0)
        self._map[at : at + count + len(text)] = states + text
        _HEADER.pack_into(self._map, 0, count, len(text))

        states_of_batch = self._map  # a late call's is not the next batch's

        def mark(position: int, state: str) -> None:
            states_of_batch[at + position] = _STATES[state]

        return mark

    def _is_removed(self) -> bool:
        """Whether a program has removed the file, for example with all else that is in the folder."""
        try:
            found = os.fstat(self._file.fileno())
        except OSError:  # it closed the descriptor: the map holds the file all the same
            return False
        return found.st_ino == self._inode and not found.st_nlink

    def end(self) -> None:
        """The batch is over. What is still to be taken off stays noted, should the process be replaced now."""
        self.begin([])

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


def _open(folder: Path) -> tuple[BinaryIO, mmap.mmap, int]:
    """The file of the batch under way, its contents, and its inode."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(os.open(folder / "running", os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115
    # Of this process alone (flock's would go to its forks as well): gone when it is.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Not a sparse one: on a full disk a write into a hole of it would end the process.
    # macOS has none of the kind, and no Lambda function.
    allocate = getattr(os, "posix_fallocate", lambda file, _, size: os.truncate(file, size))
    allocate(file.fileno(), 0, _SIZE)
    return file, mmap.mmap(file.fileno(), _SIZE), os.fstat(file.fileno()).st_ino


def _note(record: Any) -> Note:
    """What is noted of a record; nothing where it has no messageId."""
    if not isinstance(record, dict) or not isinstance(record.get("messageId"), str):
        return {}
    return {name: record[name] for name in _NOTED if isinstance(record.get(name), str)}
