"""Ignore files in git's language: which of their rules speaks about a path.

A library would do, if it were exact: pathspec lets a negated folder (`!config`) bring back all files below it, where
git brings back the folder alone. Here that would put ignored files, secrets among them, into an artifact.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

# https://git-scm.com/docs/gitignore; a `**` that is not a whole part of a path is a `*`.
_MEMBER = r"\[:[a-z]+:\]|\\."
_TOKENS = re.compile(
    r"(?P<folders>(?:^|(?<=/))\*\*+/)|(?P<rest>(?:^|(?<=/))\*\*+$)|(?P<star>\*+)|(?P<one>\?)"
    rf"|\[(?P<set>[!^]?+(?:{_MEMBER}|[^\\])(?:{_MEMBER}|[^\]\\])*)\]"
    r"|\\(?P<escaped>.)|(?P<broken>[\[\\])|(?P<plain>.)",
    re.DOTALL,
)
_MEMBERS = re.compile(r"\[:(?P<name>[a-z]+):\]|\\?(?P<low>.)-\\?(?P<high>.)|\\?(?P<one>.)", re.DOTALL)
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": re.escape(string.punctuation),
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True)
class Rule:
    """One line: what it matches, and whether it brings back (`!`) or speaks of folders only (`/` at its end)."""

    pattern: re.Pattern[str]
    negated: bool
    folders_only: bool

    def matches(self, name: str, is_folder: bool) -> bool:
        """Whether it speaks about this very path, relative to the ignore file's folder; not about one above it."""
        return (is_folder or not self.folders_only) and self.pattern.fullmatch(name) is not None


def read_rules(text: str) -> list[Rule]:
    """The rules of an ignore file, in order; lines that can match nothing are none."""
    return [rule for line in text.splitlines() if (rule := _rule(line)) is not None]


def _rule(line: str) -> Rule | None:
    line = re.sub(r"(?<!\\) +$", "", line)
    negated, folders_only = line.startswith("!"), line.endswith("/")
    glob = line.removeprefix("!").removesuffix("/")
    if not glob or line.startswith("#"):
        return None
    glob = glob.removeprefix("/") if "/" in glob else f"**/{glob}"
    tokens = list(_TOKENS.finditer(glob))
    if any(token["broken"] for token in tokens):  # a set without its end, an escape of nothing
        return None
    return Rule(re.compile("".join(map(_translate, tokens)), re.DOTALL), negated, folders_only)


def _translate(token: re.Match[str]) -> str:
    if token["set"]:
        negated = token["set"][0] in "!^"
        members = _MEMBERS.sub(_member, token["set"][negated:])
        return f"(?!/)[{'^' if negated else ''}{members}]"
    fixed = {"folders": "(?:.*/)?", "rest": ".*", "star": "[^/]*", "one": "[^/]"}
    return fixed.get(str(token.lastgroup)) or re.escape(token["escaped"] or token["plain"])


def _member(token: re.Match[str]) -> str:
    if token["name"]:
        return _CLASSES.get(token["name"], r"\0")  # an unknown one matches nothing
    if token["one"]:
        return re.escape(token["one"])
    low, high = token["low"], token["high"]
    return f"{re.escape(low)}-{re.escape(high)}" if low <= high else re.escape(low)
