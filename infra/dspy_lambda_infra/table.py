"""Tables of text, as wide as what is in them."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """One line for each row, the header's first.

    Args:
        words: how many of the first columns are aligned to the left; figures are to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(width) if number < words else cell.rjust(width) for number, (cell, width) in pairs]
        lines.append("  ".join(cells).rstrip())
    return lines
