"""Text tables with columns as wide as their content."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Return one line per row, the header first.

    Args:
        words: the number of leading columns to align left; figures are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(width) if number < words else cell.rjust(width) for number, (cell, width) in pairs]
        lines.append("  ".join(cells).rstrip())
    return lines
