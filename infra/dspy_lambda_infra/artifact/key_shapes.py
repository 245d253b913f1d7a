"""What looks like a key in a file that enters an artifact: a warning for those whose names do not tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_LARGEST = 1_000_000  # bytes; what is larger is data, and nobody pastes a key there
# As the providers' own documents and GitHub's secret scanning describe them:
# https://docs.github.com/en/code-security/reference/secret-security/supported-secret-scanning-patterns
_SHAPES = {
    "an OpenAI or Anthropic key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": rb"(?i:aws_secret_access_key)\W{1,5}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "a Google API key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})",
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{34}",
    "a Slack token": rb"\bxox[abeprs]-[A-Za-z0-9-]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY",
}
_ANY = re.compile(b"|".join(b"(?P<_%d>%s)" % (n, shape) for n, shape in enumerate(_SHAPES.values())))


def find_keys(root: Path, files: Iterable[Path]) -> Iterator[str]:
    """`file:line holds what looks like ...` for each file's first, never with the text itself.

    Args:
        files: relative to the root.
    """
    for path in files:
        if (root / path).stat().st_size > _LARGEST:
            continue
        data = (root / path).read_bytes()
        if found := _ANY.search(data):
            kind = list(_SHAPES)[int(str(found.lastgroup).removeprefix("_"))]
            line = data.count(b"\n", 0, found.start()) + 1
            yield f"{root / path}:{line} holds what looks like {kind}"
