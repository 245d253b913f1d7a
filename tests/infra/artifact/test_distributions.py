import marshal
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact import distributions
from dspy_lambda_infra.artifact.distributions import CACHE_FOLDER, build_lock, bytecode, install
from dspy_lambda_infra.artifact.lock import lock
from dspy_lambda_infra.artifact.requirements import read_requirements
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.config import Lambda
from tests.infra.artifact.conftest import HERE

ARM = Target("3.13", "arm64")
RUNTIMES = [name.removeprefix("python") for name in get_args(Lambda.model_fields["runtime"].annotation)]


@pytest.fixture
def make_tree(root):
    """Lock requirements and install them for a target."""

    def make(*own, target=HERE, litellm=False):
        requirements = replace(read_requirements(root), own=own)
        with build_lock(root):
            locked = lock(root, requirements, target.python, litellm=litellm)
            return install(root, locked, target, requirements.indexes)

    return make


def closure(tree, *roots):
    return tree.closure(map(Requirement, roots))


def test_a_function_gets_exactly_the_closure_of_its_requirements(index, make_tree):
    index.add("one", requires=["two>=1"])
    index.add("two", requires=["Three_3"])
    index.add("three-3", requires=["one"])
    index.add("other")
    tree = make_tree("one", "other")
    assert closure(tree, "One") == {"one", "two", "three-3"}
    assert closure(tree, "other") == {"other"}
    assert closure(tree) == set()


def test_extras_are_installed_only_if_requested(index, make_tree):
    index.add("one", requires=["two[Fast_Mode]", "plain"])
    requires = ["base", "quick ; extra == 'fast-mode'", "slow ; extra == 'slow-mode'"]
    index.add("two", requires=requires, extras=["fast-mode", "slow-mode"])
    for name in ("plain", "base", "quick", "slow"):
        index.add(name)
    tree = make_tree("one", "two[slow-mode]")
    assert closure(tree, "one") == {"one", "two", "plain", "base", "quick"}
    assert closure(tree, "two[slow-mode]") == {"two", "base", "slow"}
    assert closure(tree, "two") == {"two", "base"}


def test_environment_markers_are_evaluated_for_the_target(index, make_tree):
    markers = {
        "windows": "sys_platform == 'win32'",
        "linux": "platform_system == 'Linux'",
        "old": "python_version < '3.12'",
        "new": "python_full_version >= '3.13'",
        "arm": "platform_machine == 'aarch64'",
        "intel": "platform_machine == 'x86_64'",
    }
    for name in markers:
        index.add(name)
    index.add("one", requires=[f"{name} ; {marker}" for name, marker in markers.items()])
    tree = make_tree("one", "windows ; sys_platform == 'win32'", target=ARM)
    assert closure(tree, "one", "windows; sys_platform == 'win32'") == {"one", "linux", "new", "arm"}


def test_requirements_for_other_platforms_are_excluded(index, root, make_tree):
    """The lock file, which is for all targets, contains it, but it is not installed for this one."""
    index.add("one")
    index.add("windows")
    (root / "requirements.txt").write_text("one\nwindows ; sys_platform == 'win32'\n")
    tree = make_tree("one")
    assert "windows" in (root / "dspy-lambda.lock").read_text()
    assert tree.closure(read_requirements(root).listed) == {"one"}


def test_rarely_used_dspy_dependencies_are_removed_only_below_dspy(index, make_tree):
    index.add("dspy", requires=["litellm", "openai", "base"])
    index.add("plugin", requires=["openai"])
    index.add("litellm", requires=["openai"])
    for name in ("openai", "base"):
        index.add(name)
    tree = make_tree("dspy", "plugin", litellm=True)
    assert closure(tree, "dspy") == {"dspy", "base"}
    assert closure(tree, "dspy", "plugin") == {"dspy", "base", "plugin", "openai"}
    assert closure(tree, "dspy", "litellm") == {"dspy", "base", "litellm", "openai"}


def test_dspy_cli_is_not_part_of_any_closure(index, root, make_tree):
    index.add("plugin", requires=["dspy-cli", "dspy-lambda"])
    (root / "requirements.txt").write_text("plugin\n")
    assert closure(make_tree(), "plugin") == {"plugin"}


def test_a_requirement_missing_from_the_lock_file_is_an_error(index, make_tree):
    index.add("one")
    with pytest.raises(
        ConfigError, match="two is missing from the project's locked requirements; delete the lock file"
    ):
        closure(make_tree("one"), "two")


def test_files_that_no_import_reads_are_pruned(index, make_tree):
    kept = {"one/data.json": "{}", "one/testing.py": "", "one/contest/x.py": "", "one/LICENSE": "free"}
    pruned = {
        "one/tests/test_x.py": "",
        "one/test/data.json": "{}",
        "one/x.pyi": "",
        "one/x.c": "",
        "one/x.pyx": "",
        "one/py.typed": "",
        "one-1.0.dist-info/top_level.txt": "one",
        "one-1.0.dist-info/sboms/x.json": "{}",
    }
    index.add("one", files=kept | pruned)
    tree = make_tree("one")
    found = {path.as_posix() for path in tree.files("one")}
    assert {path for path in found if "__pycache__" not in path} == {
        *kept,
        "one/__init__.py",
        "one-1.0.dist-info/METADATA",
    }
    assert bytecode(Path("one/testing.py"), HERE).as_posix() in found


def test_native_programs_in_bin_are_kept_and_scripts_are_pruned(index, make_tree):
    scripts = {"one-1.0.data/scripts/tool": "\x7fELF", "one-1.0.data/scripts/command": "#!python\nimport one\n"}
    index.add("one", files=scripts)
    found = {path.as_posix() for path in make_tree("one").files("one")}
    assert {path for path in found if path.startswith("bin/")} == {"bin/tool"}


def test_litellms_server_is_pruned_of_bytecode_and_web_pages(index, make_tree):
    files = {"litellm/proxy/_types.py": "", "litellm/proxy/_experimental/out/index.html": "", "litellm/utils.py": ""}
    index.add("litellm", files=files)
    found = {path.as_posix() for path in make_tree("litellm", litellm=True).files("litellm")}
    assert {path for path in found if "_types" in path or "out/" in path} == {"litellm/proxy/_types.py"}
    assert bytecode(Path("litellm/utils.py"), HERE).as_posix() in found


def test_a_distribution_owns_only_the_files_that_it_lists(index, make_tree):
    index.add("one", files={"shared/one.py": ""})
    index.add("two", files={"shared/two.py": ""})
    tree = make_tree("one", "two")
    assert {path.name for path in tree.files("one") if path.suffix == ".py"} == {"__init__.py", "one.py"}


@pytest.mark.parametrize("python", RUNTIMES)
def test_bytecode_is_unchecked_for_the_target_and_has_lambda_paths(index, make_tree, python):
    target = Target(python, "arm64")
    interpreter = target.interpreter()
    if interpreter is None:
        pytest.skip(f"no Python {python} on this machine: its bytecode is not looked at")
    index.add("one", files={"one/deep/x.py": "def f():\n    return 1\n", "one/template.py": "{{ no Python }}"})
    tree = make_tree("one", target=target)
    assert tree.precompiled
    files = {path.as_posix() for path in tree.files("one")}
    compiled = f"one/deep/__pycache__/x.cpython-{python.replace('.', '')}.pyc"
    assert compiled in files
    assert "one/template.py" in files
    assert not [path for path in files if "template.cpython" in path]
    data = (tree.root / compiled).read_bytes()
    print_magic = "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"
    magic = subprocess.run([interpreter, "-c", print_magic], capture_output=True, text=True, check=True)
    assert data[:4].hex() == magic.stdout.strip()
    assert int.from_bytes(data[4:8], "little") == 1, "hash-based, unchecked"
    print_name = "import marshal, sys; print(marshal.loads(sys.stdin.buffer.read()).co_filename)"
    name = subprocess.run([interpreter, "-c", print_name], input=data[16:], capture_output=True, check=True)
    assert name.stdout.decode().strip() == "/var/task/one/deep/x.py"


def test_bytecode_for_another_python_is_distinguished_from_this_pythons(index, make_tree):
    index.add("one")
    tree = make_tree("one")
    (compiled,) = (path for path in tree.files("one") if path.suffix == ".pyc")
    assert compiled.name == f"__init__.{sys.implementation.cache_tag}.pyc"
    assert marshal.loads((tree.root / compiled).read_bytes()[16:]).co_filename == "/var/task/one/__init__.py"


def test_no_bytecode_is_written_without_the_targets_python(index, make_tree, monkeypatch):
    index.add("one")
    monkeypatch.setattr(Target, "_candidates", lambda self: iter(()))
    other = next(v for v in ("3.13", "3.12") if v != HERE.python)
    tree = make_tree("one", target=Target(other, "x86_64"))
    assert not tree.precompiled
    assert not [path for path in tree.files("one") if path.suffix == ".pyc"]
    assert not list(tree.root.rglob("*.pyc"))


@pytest.mark.parametrize(
    "tag", ["py3-none-win_amd64", "cp311-cp311-manylinux_2_17_aarch64", "py3-none-manylinux_2_17_x86_64"]
)
def test_a_distribution_without_a_wheel_for_the_target_is_named_with_remedies(index, root, make_tree, tag):
    index.add("native", tag=tag)
    (root / "requirements.txt").write_text("native\n")
    with pytest.raises(ConfigError) as raised:
        make_tree(target=ARM)
    assert str(raised.value).startswith("native==1.0 has no wheel for Python 3.13 on arm64;")
    assert "build the wheel yourself" in str(raised.value)
    assert {path.name for path in (root / CACHE_FOLDER).iterdir()} == {".gitignore", "lock"}


@pytest.mark.usefixtures("pypi")
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("docopt==0.6.2", "Python 3.13"),  # has no wheel at all: uv fails when it locks
        ("pywin32==306", "Python 3.13"),  # only for Windows, and not for this version
    ],
)
def test_a_real_distribution_without_a_wheel_is_named_in_the_error(root, make_tree, name, target):
    (root / "requirements.txt").write_text(f"{name}\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(name)} has no wheel for {target};") as raised:
        make_tree(target=ARM)
    assert "build the wheel yourself" in str(raised.value)


def test_wheels_may_require_the_runtimes_glibc_version(index, make_tree):
    index.add("modern", tag="py3-none-manylinux_2_28_aarch64")
    assert closure(make_tree("modern", target=ARM), "modern") == {"modern"}
    with pytest.raises(ConfigError, match=r"modern==1\.0 has no wheel for Python 3\.11"):
        make_tree("modern", target=Target("3.11", "arm64"))


def test_a_wheel_that_no_longer_exists_is_an_error(index, make_tree):
    index.add("one")
    make_tree("one")
    (index.folder / "one-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ConfigError, match="the locked requirements cannot be installed"):
        make_tree("one", target=Target(HERE.python, "x86_64" if HERE.architecture == "arm64" else "arm64"))


def test_distributions_are_installed_from_the_indexes_in_requirements_txt(index, root, make_tree):
    (index.folder / "uv.toml").write_text("no-index = true\n")
    index.add("private")
    (root / "requirements.txt").write_text("-f ../wheels\nprivate\n")
    assert closure(make_tree(), "private") == {"private"}


def test_a_tree_is_installed_once_per_lock_file_and_target(index, make_tree, monkeypatch):
    index.add("one")
    first = make_tree("one")
    monkeypatch.setattr(distributions, "uv", None)
    assert make_tree("one").root == first.root
    monkeypatch.undo()


def test_a_new_lock_file_or_target_gets_a_new_tree_and_the_oldest_is_deleted(index, make_tree, monkeypatch):
    monkeypatch.setattr(Target, "interpreter", lambda self: None)
    index.add("one")
    trees = [make_tree("one", target=Target(p, a)).root for p in ("3.12", "3.13") for a in ("arm64", "x86_64")]
    for age, tree in enumerate(trees):
        os.utime(tree.parent, (age, age))
    assert all(tree.is_dir() for tree in trees)
    index.add("two")
    newest = make_tree("one", "two").root
    assert [tree.is_dir() for tree in [*trees, newest]] == [False, True, True, True, True]


def test_the_build_cache_is_git_ignored(index, root, make_tree):
    index.add("one")
    make_tree("one")
    assert (root / CACHE_FOLDER / ".gitignore").read_text() == "*\n"


def test_an_unwritable_build_cache_is_an_error(root):
    (root / CACHE_FOLDER).write_text("a file")
    with pytest.raises(ConfigError, match=r"\.dspy-lambda: .*build cache must be writable"), build_lock(root):
        pass
