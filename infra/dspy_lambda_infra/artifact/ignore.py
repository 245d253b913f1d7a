"""Evaluates ignore files in .gitignore syntax."""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore import GitIgnorePatternError


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
        patterns = GitIgnoreSpec.from_lines([line]).patterns
    except GitIgnorePatternError:
        return []
    return [rule for rule in patterns if rule.include is not None]


def verdict(rules: list[RegexPattern], path: str, is_folder: bool) -> bool | None:
    """Whether a path is ignored, according to the last matching rule; None if no rule matches.

    Done by hand, since with GitIgnoreSpec's own verdict re-including a folder (`!config`) re-includes all files below
    it, while git re-includes only the folder: ignored files, including secrets, would enter the artifact.
    """
    return next((rule.include for rule in reversed(rules) if _is_about(rule, path, is_folder)), None)


def _is_about(rule: RegexPattern, path: str, is_folder: bool) -> bool:
    """Whether a rule matches this path itself, and not only a folder above it.

    Where pathspec's expressions match a folder's name, their only group is the slash after it.
    """
    assert isinstance(rule.regex, re.Pattern)
    name = f"{path}/" if is_folder else path
    found = rule.regex.finditer(name)
    return any(match.end() == len(name) if match.lastindex else match.end() <= len(path) for match in found)
