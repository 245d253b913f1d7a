"""What looks like a key in a file that enters an artifact: a warning for those whose names do not tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dspy_lambda.key_shapes import KEY_SHAPES

_LARGEST = 1_000_000  # bytes; what is larger is data, and nobody pastes a key there
_ANY = re.compile(b"|".join(b"(?P<_%d>%s)" % (n, shape.encode()) for n, shape in enumerate(KEY_SHAPES.values())))


def find_keys(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """`file:line holds what looks like ...` for each file's first, never with the text itself.

    Args:
        files: relative to the root.
    """
    for path in files:
        if (root / path).stat().st_size > _LARGEST:
            continue
        data = (root / path).read_bytes()
        if found := _ANY.search(data):
            kind = list(KEY_SHAPES)[int(str(found.lastgroup).removeprefix("_"))]
            line = data.count(b"\n", 0, found.start()) + 1
            yield f"{root / path}:{line} holds what looks like {kind}"
