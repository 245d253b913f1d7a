"""Keep the state of a batch's records for the next process, in case this execution environment's process dies."""

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

# Larger than an event, which has at most 6 MB.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_SIZE = 8 << 20
_HEADER = struct.Struct("<II")  # number of records in the current batch, size of their notes in bytes
_STATES = {"waiting": 0, "running": 1, "done": 2}
# The fields needed to delete a record.
Note = dict[str, str]
_NOTED = ("messageId", "receiptHandle", "eventSourceARN")


class Journal:
    """Notes which records run in a memory-mapped file, which outlives the process; a note costs one byte written.

    "The reset does not clear the /tmp directory content prior to the next init phase."
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

    Args:
        folder: the folder of its two files.

    Attributes:
        died_with: the identifiers of the records that were running when the previous process died.
        done: the records that were done when the previous process died but are still in the queue. They are noted with
            each batch until they are removed from this list.

    Raises:
        OSError: The folder is not writable, or another process uses it.
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
        """Note a batch, and return a function to note a record's state by its position.

        The states are `running`, then `waiting` or `done`. Returns None if the batch is too large, or if a program
        removed the file and it cannot be created again.
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
        # Clear the header first, so that a partial write is read as an empty journal.
        _HEADER.pack_into(self._map, 0, 0, 0)
        self._map[at : at + count + len(text)] = states + text
        _HEADER.pack_into(self._map, 0, count, len(text))

        states_of_batch = self._map  # a late call must not write to the next batch's map

        def mark(position: int, state: str) -> None:
            states_of_batch[at + position] = _STATES[state]

        return mark

    def _is_removed(self) -> bool:
        """Whether a program has removed the file, for example with everything else in the folder."""
        try:
            found = os.fstat(self._file.fileno())
        except OSError:  # a program closed the descriptor, but the map keeps the file
            return False
        return found.st_ino == self._inode and not found.st_nlink

    def end(self) -> None:
        """Note the end of the batch. Done records to delete stay noted, in case the process is replaced now."""
        self.begin([])

    def load(self) -> dict[str, int]:
        """Return what `keep` saved last."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = json.loads(self._kept.read_bytes())
            if isinstance(found, dict):
                return {str(name): int(alone) for name, alone in found.items()}
        return {}

    def keep(self, suspects: Mapping[str, int]) -> None:
        """Save the suspects for the next process; does nothing if the disk is full."""
        with contextlib.suppress(OSError):
            beside = self._kept.with_suffix(".new")
            beside.write_text(json.dumps(dict(suspects)))
            beside.replace(self._kept)


def _open(folder: Path) -> tuple[BinaryIO, mmap.mmap, int]:
    """Open the file of the current batch; return the file, its memory map and its inode."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(os.open(folder / "running", os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115
    # The lock belongs to this process alone (forks would inherit one of flock) and is released when it ends.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Allocate the blocks: on a full disk, writing to a hole of a sparse file would end the process.
    # macOS does not have posix_fallocate, but no Lambda function runs there.
    allocate = getattr(os, "posix_fallocate", lambda file, _, size: os.truncate(file, size))
    allocate(file.fileno(), 0, _SIZE)
    return file, mmap.mmap(file.fileno(), _SIZE), os.fstat(file.fileno()).st_ino


def _note(record: Any) -> Note:
    """Return the note of a record; empty if the record has no messageId."""
    if not isinstance(record, dict) or not isinstance(record.get("messageId"), str):
        return {}
    return {name: record[name] for name in _NOTED if isinstance(record.get(name), str)}
