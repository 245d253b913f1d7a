import io
import os
import pty

import pytest

from dspy_lambda_infra.terminal import Terminal, columns, cut, pad, printable, terminal, wrap, write_any_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202ebc", "a\\u202ebc"),
        ("zero\u200bwidth\u2028line", "zero\\u200bwidth\\u2028line"),
        ("half \ud83d", "half \\ud83d"),
        ("grüße 日本語 🙂", "grüße 日本語 🙂"),
    ],
)
def test_control_and_invisible_characters_are_written_as_escapes(text, shown):
    assert printable(text) == shown


def test_widths_count_wide_and_combining_characters():
    assert (columns("日本"), columns("e\u0301")) == (4, 1)
    assert pad("日本", 6) == "日本  "
    assert cut("日本語", 5) == "日本…"
    assert columns(cut("日本語", 4)) <= 4
    assert cut("abc", 3) == "abc"


def test_wrapping_breaks_between_words_and_within_long_ones():
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("a" * 10 + " b", 4) == ["aaaa", "aaaa", "aa b"]
    assert wrap("日本語", 1) == ["日", "本", "語"]
    assert wrap("", 5) == [""]


def test_a_file_has_no_width_and_no_colors():
    found = terminal(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert found == Terminal(None, colors=False, unicode=True)
    assert found.color("text", "red") == "text"


def test_an_encoding_without_box_characters_is_noticed_and_escapes_what_it_lacks():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not terminal(stream).unicode
    write_any_text(stream)
    stream.write("ü")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\xfc"


@pytest.mark.parametrize(("variable", "colors"), [("NO_COLOR", False), ("OTHER", True)])
def test_colors_are_for_terminals_without_no_color(monkeypatch, variable, colors):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, "1")
    controller, end = pty.openpty()
    try:
        with open(end, "w", encoding="utf-8") as stream:
            assert terminal(stream).colors is colors
    finally:
        os.close(controller)
