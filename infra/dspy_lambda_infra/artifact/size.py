"""Measures an artifact: its size, its largest parts, and the distance to Lambda's limits."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 250 MB unzipped, layers included; 10 GB for
# an image, uncompressed. The former is 262,144,000 bytes.
UNZIPPED_LIMIT = 262_144_000
IMAGE_LIMIT = 10 * 2**30
_MB = 1_000_000


@dataclass(frozen=True)
class Size:
    """An artifact's size in bytes, unzipped and zipped, and unzipped by top-level name."""

    unzipped: int
    zipped: int
    parts: Counter[str]

    def table(self, limit: int) -> str:
        """Return the largest contributors and the distance to the limit."""
        lines = [f"  {name:<32}{size / _MB:>8.1f} MB" for name, size in self.parts.most_common(8)]
        rest = self.unzipped - sum(size for _, size in self.parts.most_common(8))
        return "\n".join(
            [
                *lines,
                f"  {'the rest':<32}{rest / _MB:>8.1f} MB",
                f"  {'unzipped':<32}{self.unzipped / _MB:>8.1f} MB, {(limit - self.unzipped) / _MB:.1f} left",
                f"  {'zipped':<32}{self.zipped / _MB:>8.1f} MB",
            ]
        )


class _Counter:
    """A file object that only counts its bytes."""

    def __init__(self) -> None:
        self.length = 0

    def write(self, data: bytes) -> int:
        self.length += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def measure(folder: Path) -> Size:
    """Measure a folder, zipped as SAM does it."""
    parts: Counter[str] = Counter()
    counter = _Counter()
    with zipfile.ZipFile(cast(IO[bytes], counter), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            relative = path.relative_to(folder)
            parts[relative.parts[0]] += path.stat().st_size
            archive.write(path, relative)
    return Size(parts.total(), counter.length, parts)
