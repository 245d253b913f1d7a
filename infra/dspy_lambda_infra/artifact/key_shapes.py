"""Finds what looks like a key in an artifact's files, to warn about files whose names do not reveal it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dspy_lambda.key_shapes import KEY_SHAPES

_LARGEST = 1_000_000  # bytes; larger files are data, and nobody pastes a key there
_ANY = re.compile(b"|".join(b"(?P<_%d>%s)" % (n, shape.encode()) for n, shape in enumerate(KEY_SHAPES.values())))
# A DER key is a sequence that begins with its version number; a certificate begins with another sequence.
# https://www.rfc-editor.org/rfc/rfc5958#section-2, https://www.rfc-editor.org/rfc/rfc5280#section-4.1
_DER_KEY = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...)\x02", re.DOTALL)


def holds_private_key(data: bytes) -> bool:
    """Whether a file's bytes contain a private key, as PEM or DER."""
    return b"PRIVATE KEY" in _as_utf8(data) or _DER_KEY.match(data) is not None


def find_keys(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """Yield `file:line contains what looks like ...` for the first key in each file, without the key itself.

    Args:
        files: relative to the root.
    """
    for path in files:
        if (root / path).stat().st_size > _LARGEST:
            continue
        data = _as_utf8((root / path).read_bytes())
        if found := _ANY.search(data):
            kind = list(KEY_SHAPES)[int(str(found.lastgroup).removeprefix("_"))]
            line = data.count(b"\n", 0, found.start()) + 1
            yield f"{root / path}:{line} contains what looks like {kind}"


def _as_utf8(data: bytes) -> bytes:
    """Decode UTF-16, which Windows writes and in which no pattern matches."""
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data
    return data.decode("utf-16", errors="replace").encode()
