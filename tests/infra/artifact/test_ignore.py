"""Single ignore rules; test_files.py compares whole ignore files with git."""

import pytest

from dspy_lambda_infra.artifact.ignore import read_rules, verdict


def matches(line, name, is_folder=False):
    return verdict(read_rules(line), name, is_folder) is True


@pytest.mark.parametrize(
    ("line", "name", "matched"),
    [
        ("*.py", "a/b.py", True),
        ("/*.py", "a/b.py", False),
        ("a/*.py", "a/b.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a**c", "abc", True),
        ("?", "a", True),
        ("?", "ab", False),
        ("[a-c]", "b", True),
        ("[!a-c]", "b", False),
        ("[^a-c]", "d", True),
        ("[[:digit:]]", "7", True),
        ("[[:nothing:]]", "7", False),
        ("[c-a]", "c", True),
        ("[]a]", "]", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"\#a", "#a", True),
        ("a.b", "axb", False),
    ],
)
def test_ignore_rules_match_as_git_documents(line, name, matched):
    assert matches(line, name) is matched


def test_trailing_spaces_are_stripped_unless_escaped():
    assert matches("a  ", "a")
    assert matches("a\\ ", "a ")


def test_a_trailing_slash_matches_only_folders():
    assert matches("build/", "build", is_folder=True)
    assert not matches("build/", "build")


def test_an_exclamation_mark_reincludes_a_path():
    assert verdict(read_rules("*\n!b\n"), "b", is_folder=False) is False


@pytest.mark.parametrize("line", ["", "# comment", "/", "!", "[a", "a\\"])
def test_lines_that_cannot_match_anything_give_no_rules(line):
    assert read_rules(line) == []
