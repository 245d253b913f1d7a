from pathlib import Path

import pytest

from dspy_lambda_infra.artifact.key_shapes import find_keys
from tests.support import ECHO

# Concatenated, so that scanners do not report this file.
KEYS = {
    "an OpenAI or Anthropic key": ["sk-" + "a1B2" * 12, "sk-proj-" + "a_1-" * 20, "sk-ant-api03-" + "x" * 80],
    "an AWS access key": ["AKIA" + "ABCD1234EFGH5678"],
    "an AWS secret key": ["aws_secret_access_key = " + "a/B+" * 10, 'AWS_SECRET_ACCESS_KEY: "' + "abcd" * 10 + '"'],
    "a Google API key": ["AIza" + "a1_-B" * 7],
    "a GitHub token": ["ghp_" + "a1" * 18, "github_pat_" + "a1_" * 20],
    "a Hugging Face token": ["hf_" + "aB" * 17],
    "a model provider's key": ["gsk_" + "aB3d" * 13, "xai-" + "aB3d" * 20, "pplx-" + "aB3d" * 12],
    "a Stripe key": ["sk_live_" + "aB3d" * 6, "rk_test_" + "aB3d" * 6],
    "a JSON Web Token": [".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0In0", "x" * 43])],
    "a Slack token": ["xoxb-" + "1234567890-" * 3],
    "a private key": ["-----BEGIN " + "RSA PRIVATE KEY-----", "-----BEGIN " + "PRIVATE KEY-----"],
}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in KEYS.items() for key in keys])
def test_key_warnings_name_the_line_but_not_the_key(tmp_path, kind, key):
    (tmp_path / "notes.py").write_text(f"one\ntwo = {key!r}\n")
    (found,) = find_keys(tmp_path, [Path("notes.py")])
    assert found == f"{tmp_path}/notes.py:2 contains what looks like {kind}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_keys_are_found_in_utf_16_files(tmp_path, encoding):
    (tmp_path / "notes.txt").write_bytes(f"one\ntwo {KEYS['an AWS access key'][0]}\n".encode(encoding))
    (found,) = find_keys(tmp_path, [Path("notes.txt")])
    assert found.endswith("notes.txt:2 contains what looks like an AWS access key")


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-gradient-boosting-classifier",
        "eyJ.a.b",
        "sk_live_demo",
        "sk-short",
        "task-" + "abcd-" * 12,
        "AKIA",
        "hf_model",
        "OPENAI_API_KEY",
        "\x00\xff",
    ],
)
def test_text_that_is_not_a_key_causes_no_warning(tmp_path, text):
    (tmp_path / "notes.txt").write_text(text)
    assert list(find_keys(tmp_path, [Path("notes.txt")])) == []


def test_build_warns_about_a_key_in_a_file(make_project, quick_build):
    key, said = KEYS["an AWS access key"][0], []
    project = make_project({"echo": f"KEY = {key!r}\n{ECHO}"})
    quick_build(project, said=said)
    (line,) = said
    assert line.startswith("warning: ")
    assert "echo.py:2 contains what looks like an AWS access key" in line
    assert key not in line
