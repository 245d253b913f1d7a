"""Recognize keys by their shape. Imported for names as long as keys, by commands, and where payloads are written."""

from __future__ import annotations

import re

# As described in the providers' documentation and for GitHub's secret scanning:
# https://docs.github.com/en/code-security/reference/secret-security/supported-secret-scanning-patterns
KEY_SHAPES = {
    "an OpenAI or Anthropic key": r"\bsk-(?!learn)[A-Za-z0-9_-]{20,}",
    "a model provider's key": r"\b(?:gsk_|r8_|xai-|pplx-|nvapi-)[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": r"(?i:aws_secret_access_key)\W{1,5}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a Slack token": r"\bxox[a-z]-[A-Za-z0-9-]{20,}",
    "a Stripe key": r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    "a JSON Web Token": r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
}
_ANY = re.compile("|".join(KEY_SHAPES.values()), re.ASCII)
# Each shape contains one of these; looking for them first takes a tenth of the time.
_PARTS = (
    *("sk-", "gsk_", "r8_", "xai-", "pplx-", "nvapi-", "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "hf_", "xox", "k_live_", "k_test_", "eyJ", "PRIVATE KEY"),
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL)
# Other providers' keys, which only their length and digits distinguish from words.
_PLAIN = re.compile(r"(?=.*[0-9])[A-Za-z0-9]{32,}")


def looks_like_key(text: str) -> bool:
    """Whether a text contains a key."""
    return _ANY.search(text) is not None


def mask_keys(text: str, mark: str) -> str:
    """Replace each key in a text; of a private key, all until its end."""
    if "PRIVATE KEY" in text:
        text = _PEM.sub(mark, text)
    is_candidate = any(part in text for part in _PARTS) or "aws_secret_access_key" in text.lower()
    return _ANY.sub(mark, text) if is_candidate else text


def is_key_for_name(name: str) -> bool:
    """Whether a variable's name is actually a key."""
    return looks_like_key(name) or _PLAIN.fullmatch(name) is not None
