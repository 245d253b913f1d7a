"""What a terminal can show: its width, colors and characters; and text that cannot take it over."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from dataclasses import dataclass
from typing import TextIO

_COLORS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
# For output that is not a terminal: files have no width, but a waterfall needs one.
_FILE_COLUMNS = 120
# Cc: control characters, ANSI escapes begin with one. Cf: invisible ones, which may reverse the order of a line.
# Zl, Zp: line breaks. Cs: halves of characters, which no encoding can write.
_UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Cs"}


@dataclass(frozen=True)
class Terminal:
    """How to write to a stream.

    Attributes:
        columns: the width; None if the output is not a terminal, where lines may have any length.
        colors: whether to write colors.
        unicode: whether the stream's encoding has box characters.
    """

    columns: int | None
    colors: bool
    unicode: bool

    @property
    def width(self) -> int:
        """The number of columns to draw on."""
        return self.columns or _FILE_COLUMNS

    def color(self, text: str, name: str) -> str:
        """Return the text in a color; unchanged where colors are off. Call it last: it adds invisible characters."""
        return f"\x1b[{_COLORS[name]}m{text}\x1b[0m" if self.colors and text else text


def terminal(stream: TextIO | None = None) -> Terminal:
    """Return what a stream (standard output by default) can show.

    Colors are for terminals only, and off with NO_COLOR (https://no-color.org) or TERM=dumb.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        return Terminal(None, colors=False, unicode=_has_boxes(stream))
    colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Terminal(max(shutil.get_terminal_size().columns, 40), colors, _has_boxes(stream))


def _has_boxes(stream: TextIO) -> bool:
    try:
        "█├─∥…".encode(stream.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def write_any_text(stream: TextIO | None = None) -> None:
    """Let a stream write characters that its encoding does not have, as escapes, instead of failing."""
    reconfigure = getattr(stream or sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    r"""Return a text in which control and invisible characters are written as escapes such as \x1b.

    Texts come from models and callers: they must not move the cursor, color a terminal or fake a line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def columns(text: str) -> int:
    """Return how many columns a printable text takes: two for East Asian wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def cut(text: str, width: int, mark: str = "…") -> str:
    """Return the text in at most that many columns, with a mark at the end if it is cut."""
    if columns(text) <= width:
        return text
    kept = text[: max(width - len(mark), 0)]
    while columns(kept) > max(width - len(mark), 0):
        kept = kept[:-1]
    return (kept + mark)[: max(width, 0)]


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return the text in exactly that many columns (or more, if it is longer), left-aligned unless `right`."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a printable text, broken between words where possible."""
    lines, current = [], ""
    for word in text.split(" "):
        joined = f"{current} {word}" if current else word
        if columns(joined) <= width:
            current = joined
            continue
        if current:
            lines.append(current)
        while columns(word) > width:
            part = cut(word, width, "")
            part = part or word[:1]
            lines.append(part)
            word = word[len(part) :]
        current = word
    return [*lines, current] if current or not lines else lines
