import re
from dataclasses import replace

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact import lock as lock_module
from dspy_lambda_infra.artifact.lock import LOCK_FILE, lock
from dspy_lambda_infra.artifact.requirements import read_requirements
from dspy_lambda_infra.artifact.uv import uv


@pytest.fixture
def dspy(index):
    """A small index: DSPy requires LiteLLM and openai, as in reality, and one more distribution."""
    index.add("dspy", "3.4.1", ["litellm", "openai", "figures"])
    index.add("litellm", requires=["tokens"])
    for name in ("openai", "figures", "tokens"):
        index.add(name)
    return index


def locked(root, *, litellm=False, python="3.12", own="dspy>=3"):
    requirements = replace(read_requirements(root), own=(own,))
    return lock(root, requirements, python, litellm=litellm).read_text()


def names(text):
    return set(re.findall(r"^([a-z-]+)==", text, re.MULTILINE))


def test_a_project_without_requirements_is_locked_with_the_handlers(dspy, root):
    assert names(locked(root)) == {"dspy", "figures"}


def test_the_lock_has_the_projects_requirements_with_dependencies_and_hashes(dspy, root):
    dspy.add("plain", requires=["deeper"])
    dspy.add("deeper")
    (root / "requirements.txt").write_text("plain\n")
    text = locked(root)
    assert names(text) == {"dspy", "figures", "plain", "deeper"}
    assert len(re.findall("--hash=sha256:[0-9a-f]{64}", text)) == 4


def test_locking_with_litellm_includes_its_dependencies(dspy, root):
    assert names(locked(root, litellm=True)) == {"dspy", "figures", "litellm", "openai", "tokens"}


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ("dspy", set()),
        ("dspy\nplain", set()),
        ("openai", {"openai"}),
        ("wants-openai", {"wants-openai", "openai"}),
        ("litellm", {"litellm", "tokens"}),
        ("deep", {"deep", "wants-litellm", "litellm", "tokens"}),
        ("litellm; sys_platform == 'win32'", {"litellm", "tokens"}),
    ],
)
def test_rarely_used_dspy_dependencies_stay_locked_if_the_project_requires_them(dspy, root, own, kept):
    dspy.add("plain")
    dspy.add("wants-openai", requires=["openai>=1"])
    dspy.add("wants-litellm", requires=["litellm"])
    dspy.add("deep", requires=["wants-litellm", "dspy"])
    (root / "requirements.txt").write_text(own)
    assert names(locked(root)) - {"plain"} == {"dspy", "figures"} | kept


def test_dspy_cli_is_never_locked(dspy, root):
    dspy.add("dspy-cli", requires=["server"])
    dspy.add("dspy-lambda", requires=["server"])
    dspy.add("server")
    dspy.add("plugin", requires=["dspy-cli"])
    (root / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["dspy-cli", "dspy-lambda", "plugin"]\n'
    )
    assert names(locked(root)) == {"dspy", "figures", "plugin"}


def test_the_lock_is_rewritten_only_if_its_inputs_change(dspy, root, monkeypatch):
    dspy.add("plain")
    (root / "requirements.txt").write_text("-r more.txt\n")
    (root / "more.txt").write_text("plain\n")
    calls = []
    monkeypatch.setattr(lock_module, "uv", lambda *arguments, **more: calls.append(arguments) or uv(*arguments, **more))

    def times():
        calls.clear()
        locked(root)
        return len(calls)

    assert times() == 2
    assert times() == 0
    (root / "more.txt").write_text("plain\nfigures\n")
    assert times() == 2
    assert times() == 0
    first = (root / LOCK_FILE).read_text()
    locked(root, litellm=True)
    locked(root, python="3.11")
    assert (root / LOCK_FILE).read_text() != first
    assert times() == 2
    assert (root / LOCK_FILE).read_text() == first


def test_locked_versions_stay_until_the_lock_file_is_deleted(dspy, root):
    dspy.add("plain")
    (root / "requirements.txt").write_text("plain\n")
    locked(root)
    dspy.add("plain", "2.0")
    dspy.add("figures", "2.0")
    (root / "requirements.txt").write_text("plain>=2\n")
    text = locked(root)
    assert "plain==2.0" in text
    assert "figures==1.0" in text
    (root / LOCK_FILE).unlink()
    assert "figures==2.0" in locked(root)


def test_the_lock_respects_the_projects_uv_lock(dspy, root):
    dspy.add("plain")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["plain", "dspy"]\n'
    )
    uv("lock", "--project", str(root))
    dspy.add("plain", "2.0")
    assert "plain==1.0" in locked(root)
    uv("lock", "--project", str(root), "--upgrade")
    assert "plain==2.0" in locked(root)


def uv_project(root, *dependencies):
    listed = ", ".join(f'"{line}"' for line in dependencies)
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = [{listed}]\n'
    )
    uv("lock", "--project", str(root))


def test_a_uv_lock_with_an_older_dspy_is_refused_with_both_versions_and_the_fix(dspy, root):
    dspy.add("dspy", "2.6")
    uv_project(root, "dspy==2.6")
    uv_project(root, "dspy>=2")  # uv keeps locked versions
    with pytest.raises(ConfigError) as raised:
        locked(root)
    (line,) = str(raised.value).splitlines()
    assert line == (
        f"{root}/uv.lock has dspy==2.6, but dspy-lambda needs dspy>=3; run: "
        f"uv lock --project {root} --upgrade-package dspy"
    )
    uv("lock", "--project", str(root), "--upgrade-package", "dspy")
    assert "dspy==3.4.1" in locked(root)


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_a_requirement_that_excludes_the_handlers_is_refused_with_both_requirements(dspy, root, file):
    dspy.add("dspy", "2.6")
    text = "dspy==2.6\n"
    if file == "pyproject.toml":
        text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["dspy==2.6"]\n'
    (root / file).write_text(text)
    with pytest.raises(ConfigError) as raised:
        locked(root)
    (line,) = str(raised.value).splitlines()
    assert line == f"{root / file} has dspy==2.6, but dspy-lambda needs dspy>=3; change that line to: dspy>=3"


def test_a_uv_lock_that_pins_an_older_dspy_dependency_names_the_fix(dspy, root):
    dspy.add("dspy", "3.5", requires=["figures>=2"])
    uv_project(root, "figures")
    dspy.add("figures", "2.0")
    with pytest.raises(ConfigError, match=rf"uv lock --project {root} --upgrade") as raised:
        locked(root, own="dspy>=3.5")
    assert "figures>=2" in str(raised.value)
    uv("lock", "--project", str(root), "--upgrade")
    assert "dspy==3.5" in locked(root, own="dspy>=3.5")


def test_conflicting_requirements_are_explained(dspy, root):
    dspy.add("figures", "2.0")
    dspy.add("strict", requires=["figures>=2"])
    (root / "requirements.txt").write_text("strict\nfigures<2\n")
    with pytest.raises(ConfigError, match=r"cannot be resolved for Python 3.12") as raised:
        locked(root)
    assert "strict" in str(raised.value)
    assert "figures>=2" in str(raised.value)
    assert not (root / LOCK_FILE).exists()


@pytest.mark.parametrize("line", ["nothing-of-that-name", "plain==9", "-e ."])
def test_an_unknown_requirement_is_an_error_and_writes_no_lock(dspy, root, line):
    dspy.add("plain")
    (root / "requirements.txt").write_text(line)
    with pytest.raises(ConfigError):
        locked(root)
    assert list(root.iterdir()) == [root / "requirements.txt"]


def test_an_invalid_uv_lock_is_an_error(dspy, root):
    (root / "uv.lock").write_text("no lock file")
    with pytest.raises(ConfigError, match=r"uv\.lock: uv cannot export it"):
        locked(root)


def test_the_lock_contains_no_index_url(dspy, root):
    dspy.add("plain")
    (root / "requirements.txt").write_text(
        f"--find-links {dspy.folder}\n--extra-index-url http://user:password@127.0.0.1:9/simple\nplain\n"
    )
    text = locked(root)
    assert "plain==1.0" in text
    assert not re.search(r"://|password|find-links|index|wheels", text)


def test_uv_uses_the_projects_settings_from_any_working_directory(dspy, root, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    dspy.add("private-of-this-test")
    (root / "uv.toml").write_text((dspy.folder / "uv.toml").read_text())
    (root / "requirements.txt").write_text("private-of-this-test\n")
    assert "private-of-this-test" in names(locked(root))


def test_an_unwritable_lock_file_is_an_error(dspy, root):
    (root / f"{LOCK_FILE}.new").mkdir()
    with pytest.raises(ConfigError, match=r"dspy-lambda\.lock: .*version control"):
        locked(root)


def test_uv_needs_no_python_on_the_path(dspy, root, monkeypatch):
    monkeypatch.setenv("PATH", str(root))
    assert names(locked(root)) == {"dspy", "figures"}
