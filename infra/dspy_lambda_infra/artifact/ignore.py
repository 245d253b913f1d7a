"""Ignore files in git's language: what their rules say about a path."""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore import GitIgnorePatternError


def read_rules(text: str) -> list[RegexPattern]:
    """The rules of an ignore file, in order; lines that can match nothing are none."""
    return [rule for line in text.splitlines() for rule in _rules(line)]


def _rules(line: str) -> list[RegexPattern]:
    # To git, `***` is `**`, `a/**/` is about the folders below `a` and not about `a` itself, and `\/` is a slash:
    # pathspec differs in these (tests/infra/artifact/test_files.py compares the two).
    line = re.sub(r"(^!?|/)\*{3,}(?=/|$)", r"\1**", line)
    line = re.sub(r"/\*\*/$", "/**/*/", line)
    line = re.sub(r"(?<!\\)((?:\\\\)*)\\/", r"\1/", line)
    try:
        patterns = GitIgnoreSpec.from_lines([line]).patterns
    except GitIgnorePatternError:
        return []
    return [rule for rule in patterns if rule.include is not None]


def verdict(rules: list[RegexPattern], path: str, is_folder: bool) -> bool | None:
    """Whether a path is ignored, by the last rule that speaks about it; None if none does.

    By hand, since GitIgnoreSpec's own verdict lets a folder that is brought back (`!config`) bring back all files below
    it, where git brings back the folder alone: ignored files, secrets among them, would enter an artifact.
    """
    return next((rule.include for rule in reversed(rules) if _is_about(rule, path, is_folder)), None)


def _is_about(rule: RegexPattern, path: str, is_folder: bool) -> bool:
    """Whether a rule matches this very path, and not only a folder above it.

    Where pathspec's expressions match a folder's name, their one group is the slash behind it.
    """
    assert isinstance(rule.regex, re.Pattern)
    name = f"{path}/" if is_folder else path
    found = rule.regex.finditer(name)
    return any(match.end() == len(name) if match.lastindex else match.end() <= len(path) for match in found)
