"""What looks like a key in a file that enters an artifact: a warning for those whose names do not tell."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dspy_lambda.key_shapes import KEY_SHAPES

_LARGEST = 1_000_000  # bytes; what is larger is data, and nobody pastes a key there
_ANY = re.compile(b"|".join(b"(?P<_%d>%s)" % (n, shape.encode()) for n, shape in enumerate(KEY_SHAPES.values())))
# A key in DER is a sequence that begins with its version, a number; a certificate begins with another sequence.
# https://www.rfc-editor.org/rfc/rfc5958#section-2, https://www.rfc-editor.org/rfc/rfc5280#section-4.1
_DER_KEY = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...)\x02", re.DOTALL)


def holds_private_key(data: bytes) -> bool:
    """Whether a private key is in a file's bytes, as PEM or DER."""
    return b"PRIVATE KEY" in _as_utf8(data) or _DER_KEY.match(data) is not None


def find_keys(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """`file:line holds what looks like ...` for each file's first, never with the text itself.

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
            yield f"{root / path}:{line} holds what looks like {kind}"


def _as_utf8(data: bytes) -> bytes:
    """Windows writes UTF-16, in which no key has its shape."""
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data
    return data.decode("utf-16", errors="replace").encode()
