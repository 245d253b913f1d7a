import pytest

from dspy_lambda_infra.artifact.uv import UvError, uv, without_user


def test_uv_errors_are_shown_without_tokens(tmp_path):
    (tmp_path / "own.in").write_text("private @ git+https://planted@127.0.0.1:9/a/b.git\n")
    with pytest.raises(UvError, match=r"127\.0\.0\.1:9/a/b\.git") as error:
        uv("pip", "compile", "-q", "--offline", str(tmp_path / "own.in"))
    assert "planted" not in str(error.value)


def test_without_user_removes_only_the_user_from_urls():
    text = "a @ https://u:p@example.com/a.whl and 'git+ssh://git@example.com/b@v1' by me@example.com"
    shown = "a @ https://example.com/a.whl and 'git+ssh://example.com/b@v1' by me@example.com"
    assert without_user(text) == shown
