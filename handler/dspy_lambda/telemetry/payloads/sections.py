"""Find masked fields in free text: prompts, answers and messages of exceptions write them by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

IsMasked = Callable[[str], bool]
# `[[ ## field ## ]]` of DSPy's ChatAdapter, <field> of its XMLAdapter, and "field": of its JSONAdapter, which is also
# how JSON, `repr` (field=, 'field':), headers and URLs write a field. Each pattern takes linear time.
_CHAT = re.compile(r"\[\[ ## ([^\]\n]{1,100}) ## \]\]")
_TAG = re.compile(r"<([A-Za-z_][\w.:-]{0,99})(?:\s[^<>]{0,200})?>")
_SIGN = re.compile(r"[:=]{1,2}>?\s{0,9}")
_BEFORE_SIGN = re.compile(r"""\s{0,9}[*`]{0,3}((?:["']\\{0,7})?)([\w-]{2,100})(?![\w-])""")  # read from right to left
_BEFORE_LENGTH = 120
_OPENING = re.compile(r"""(?:[A-Za-z]{0,20}\()?[a-z]{0,2}(\\{0,7}["'])|([\[{(])""")
_TO_LINE = re.compile(r"(?:Bearer|Basic)\s+\S+|[^\n]*", re.IGNORECASE)
_TO_COMMA = re.compile(r"[^,}\]\n]*")
_TO_SPACE = re.compile(r"(?:(?:Bearer|Basic|Digest|Token)\s+)?[^\s,;&)}\]]*", re.IGNORECASE)
_STRUCTURE = re.compile(r"""\\.|["'\[\](){}]""", re.DOTALL)
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def _ignore(_: str) -> None:
    """Take no note of a masked section."""


def mask_sections(text: str, is_masked: IsMasked, mark: str, note: Callable[[str], None] = _ignore) -> str:
    """Replace the value of each field whose name is masked, up to its end, or to the text's if it has none.

    Args:
        note: called with each value that is replaced.
    """
    if "[[ ## " in text:
        text = _replace(text, _CHAT, is_masked, mark, lambda _, at: _found(text.find("[[ ## ", at), text), note)
    if "<" in text:
        text = _replace(text, _TAG, is_masked, mark, partial(_tag_end, text), note)
    if ":" in text or "=" in text:
        text = _replace(text, _SIGN, is_masked, mark, partial(_value_end, text), _quoted_only(note))
    return text


def _quoted_only(note: Callable[[str], None]) -> Callable[[str], None]:
    """Take note of quoted values only: others are the rest of a line of prose."""
    return lambda value: note(value) if value[:1] in ("'", '"') else None


def _replace(
    text: str,
    names: re.Pattern[str],
    is_masked: IsMasked,
    mark: str,
    end_of: Callable[[re.Match[str], int], int],
    note: Callable[[str], None],
) -> str:
    kept, done, at = [], 0, 0
    while found := names.search(text, at):
        at = found.end()
        if is_masked(found[1] if names.groups else _key_before(found)[0]):
            kept += [text[done:at], mark]
            done = max(end_of(found, at), at)
            note(text[at:done])
            at = done
    return "".join([*kept, text[done:]]) if kept else text


def _found(at: int, text: str) -> int:
    return at if at >= 0 else len(text)


def _tag_end(text: str, tag: re.Match[str], at: int) -> int:
    return _found(text.find(f"</{tag[1]}>", at), text)


def _key_before(sign: re.Match[str]) -> tuple[str, bool]:
    """Return the name before a colon or an equals sign, and whether it is quoted.

    Signs are rare in prose: looking for them, and from there for a name, takes a tenth of the time of the reverse.
    """
    found = _BEFORE_SIGN.match(sign.string[max(0, sign.start() - _BEFORE_LENGTH) : sign.start()][::-1])
    return (found[2][::-1], bool(found[1])) if found else ("", False)


def _value_end(text: str, sign: re.Match[str], at: int) -> int:
    opening = _OPENING.match(text, at)
    if opening and opening[1]:
        return _quote_end(text, opening.end(), opening[1])
    if opening:
        return _bracket_end(text, at)
    is_quoted = _key_before(sign)[1]
    rest = _TO_COMMA if is_quoted else _TO_SPACE if sign[0].startswith("=") else _TO_LINE
    found = rest.match(text, at)
    return found.end() if found else at


def _quote_end(text: str, at: int, quote: str) -> int:
    """Return the end of a quoted text; within JSON in JSON, its quotes have backslashes themselves."""
    if len(quote) > 1:
        found = re.compile(r"(?<!\\)" + re.escape(quote)).search(text, at)
    else:
        found = re.compile(rf"(?:[^{quote}\\]|\\.)*+{quote}", re.DOTALL).match(text, at)
    return found.end() if found else len(text)


def _bracket_end(text: str, at: int) -> int:
    """Return the end of a list or an object, whose texts may contain brackets."""
    open_ones: list[str] = []
    quote = ""
    for found in _STRUCTURE.finditer(text, at):
        sign = found[0]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in _CLOSING:
            open_ones.append(_CLOSING[sign])
        elif open_ones and sign == open_ones[-1]:
            open_ones.pop()
            if not open_ones:
                return found.end()
    return len(text)
