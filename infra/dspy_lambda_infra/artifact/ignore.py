"""Evaluates ignore files in .gitignore syntax."""

from __future__ import annotations

import re
import string

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore import GitIgnorePatternError

_CLASSES = {
    "alnum": str.isalnum,
    "alpha": str.isalpha,
    "blank": " \t".__contains__,
    "cntrl": lambda character: character < " " or character == "\x7f",
    "digit": str.isdigit,
    "graph": lambda character: "!" <= character <= "~",
    "lower": str.islower,
    "print": str.isprintable,
    "punct": string.punctuation.__contains__,
    "space": str.isspace,
    "upper": str.isupper,
    "xdigit": string.hexdigits.__contains__,
}
_ASCII = [chr(number) for number in range(1, 128)]
_BRACKETS = re.compile(r"(?<!\\)((?:\\\\)*)\[([!^]?)(\]?(?:\[:\w*:\]|\\.|[^\]\\])*)\]")
_MEMBER = re.compile(r"\[:(\w*):\]|(\\?.)(?:-(\\?[^\]]))?", re.DOTALL)


def read_rules(text: str) -> list[RegexPattern]:
    """Return the rules of an ignore file, in order, without lines that cannot match anything."""
    return [rule for line in text.splitlines() for rule in _rules(line)]


def _rules(line: str) -> list[RegexPattern]:
    # For git, `***` is `**`, `a/**/` matches the folders below `a` but not `a` itself, and `\/` is a slash: pathspec
    # differs in these (tests/infra/artifact/test_files.py compares the two).
    line = re.sub(r"(^!?|/)\*{3,}(?=/|$)", r"\1**", line)
    line = re.sub(r"/\*\*/$", "/**/*/", line)
    line = re.sub(r"(?<!\\)((?:\\\\)*)\\/", r"\1/", line)
    try:
        patterns = GitIgnoreSpec.from_lines([_BRACKETS.sub(_plain_brackets, line)]).patterns
    except (GitIgnorePatternError, KeyError):  # such as a class that is unknown: it matches nothing
        return []
    return [rule for rule in patterns if rule.include is not None]


def _plain_brackets(found: re.Match[str]) -> str:
    """Brackets that list what they match: pathspec knows no classes, escapes or backward ranges between them.

    Raises:
        KeyError: a class is unknown.
    """
    listed: set[str] = set()
    for name, first, last in _MEMBER.findall(found[3]):
        if name or not first:
            listed.update(filter(_CLASSES[name], _ASCII))
        else:
            low = first[-1]
            high = max(low, last[-1:])  # of a backward range git takes the first character
            listed.update([low] if high == low else map(chr, range(ord(low), ord(high) + 1)))
    listed.discard("/")  # which no brackets match
    # Characters with a meaning of their own go where they have none; a NUL is in no name.
    ends = ("]" if "]" in listed else "\0") + "".join(sorted(listed - set("]-")))
    return f"{found[1]}[{'!' if found[2] else ''}{ends}{'-' if '-' in listed else ''}]"


def verdict(rules: list[RegexPattern], path: str, is_folder: bool) -> bool | None:
    """Whether a path is ignored, according to the last matching rule; None if no rule matches.

    Done by hand, since with GitIgnoreSpec's own verdict re-including a folder (`!config`) re-includes all files below
    it, while git re-includes only the folder: ignored files, including secrets, would enter the artifact.
    """
    return next((rule.include for rule in reversed(rules) if _matches_itself(rule, path, is_folder)), None)


def _matches_itself(rule: RegexPattern, path: str, is_folder: bool) -> bool:
    """Whether a rule matches this path itself, and not only a folder above it.

    Where pathspec's expressions match a folder's name, their only group is the slash after it.
    """
    assert isinstance(rule.regex, re.Pattern)
    name = f"{path}/" if is_folder else path
    found = rule.regex.finditer(name)
    return any(match.end() == len(name) if match.lastindex else match.end() <= len(path) for match in found)
