import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspy_lambda_infra.artifact import files
from dspy_lambda_infra.artifact.files import project_files
from tests.infra.artifact.conftest import contents
from tests.support import ECHO

SECRET = "sk-planted-0123456789"

# Where a secret may be, and the ignore files that exclude it.
PLANTED = {
    "dotenv": (".env", {}),
    "dotenv of a stage": (".env.prod", {}),
    "dotenv by suffix": ("prod.env", {}),
    "dotenv in a package": ("src/package/.env", {}),
    "version control": (".git/config", {}),
    "version control of a part": ("src/package/.git/config", {}),
    "AWS credentials": (".aws/credentials", {}),
    "credentials by name": ("src/package/credentials.json", {}),
    "secrets by name": ("secrets.yaml", {}),
    "client secret": ("src/client_secret_web.json", {}),
    **{
        name: (name, {})
        for name in (
            "application_default_credentials.json",
            "aws_credentials.csv",
            "src/package/Credentials.JSON",
            "service-account.json",
            "service_account_prod.json",
            "src/package/firebase-adminsdk.json",
            "project-firebase-adminsdk-x1.json",
            "gcp-key.json",
            "gcp_key.json",
            "serviceAccountKey.json",
            "kubeconfig",
            "kubeconfig.yaml",
            "prod.kubeconfig",
            "terraform.tfstate",
            "terraform.tfstate.backup",
            "prod.tfvars",
            "release.jks",
            "deploy.ppk",
            "env.local",
            "env.production",
            "config.env.bak",
            "dspy.config.yaml.bak",
            "dspy.config.yaml.orig",
            "settings.toml.old",
            "secrets.py.save",
            "client_secrets.json",
            "token.pickle",
            "signing.asc",
            "vpn.ovpn",
            "passwords.kdbx",
            "server.cer.key",
            "id_ecdsa",
            "id_dsa.old",
            "rclone.conf",
            "token.json",
            "credentials.toml",
            "src/package/aws-credentials.ini",
            "secrets/openai",
            "src/package/secrets/prod/key.txt",
            "ServiceAccount.json",
            "prod-sa-key.json",
        )
    },
    "certificate": ("certificates/server.pem", {}),
    "private key": ("src/package/server.key", {}),
    "SSH key": ("id_rsa", {}),
    "tests": ("tests/data.txt", {}),
    "tests in a package": ("src/package/tests/data.txt", {}),
    "a test": ("src/package/test_echo.py", {}),
    "logs": ("logs/today.txt", {}),
    "a log": ("src/package/debug.log", {}),
    "bytecode": ("src/package/__pycache__/echo.cpython-313.pyc", {}),
    "bytecode of old": ("src/package/echo.pyc", {}),
    "environment": (".venv/lib/data.txt", {}),
    "environment, not hidden": ("venv/lib/data.txt", {}),
    "the build's cache": (".dspy-lambda/key/packages/data.txt", {}),
    "SAM's cache": (".aws-sam/build/data.txt", {}),
    "sample events": ("events/rest.json", {}),
    ".gitignore": ("notes.txt", {".gitignore": "notes.txt"}),
    ".gitignore with byte order mark": ("notes.txt", {".gitignore": "\ufeffnotes.txt\r\n"}),
    ".gitignore with an invalid pattern": ("notes.txt", {".gitignore": "!\n[z-a\nnotes.txt"}),
    ".gitignore of a folder": ("data/notes.txt", {".gitignore": "/data/"}),
    "nested .gitignore": ("src/package/notes.txt", {"src/package/.gitignore": "*.txt"}),
    ".gitignore above": ("data/notes.txt", {"../../.gitignore": "notes.txt"}),
    ".gitignore above, by path": ("data/notes.txt", {"../../.gitignore": "/apps/project/data"}),
    ".samignore": ("notes.txt", {".samignore": "notes.txt"}),
    ".samignore above": ("notes.txt", {"../.samignore": "notes.txt"}),
    ".samignore against a nested .gitignore": ("a/b.csv", {".samignore": "*.csv", "a/.gitignore": "*\n!*.csv"}),
    "brought back in vain": (".env", {".gitignore": "!.env", ".samignore": "!.env"}),
    "brought back in an ignored folder": ("data/notes.txt", {".gitignore": "data/\n!data/notes.txt"}),
    "below a folder that is brought back": ("conf/a.local", {".gitignore": "*.local\n!conf"}),
}


@pytest.fixture
def project(make_project, tmp_path):
    """A project in the folder `apps` of a repository."""
    root = tmp_path / "repository" / "apps" / "project"
    root.parent.mkdir(parents=True)
    (tmp_path / "repository" / ".git").mkdir()
    return make_project({"echo": ECHO}).rename(root)


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def names(root):
    return [path.as_posix() for path in project_files(root)]


@pytest.mark.parametrize("place", PLANTED)
def test_secret_files_are_excluded_from_artifacts(project, place):
    path, ignores = PLANTED[place]
    write(project, path, SECRET)
    for name, text in ignores.items():
        write(project, name, text)
    entering = project_files(project)
    assert not [p for p in entering if SECRET in (project / p).read_text()]
    assert project / "dspy.config.yaml" in [project / p for p in entering]


def test_built_artifacts_contain_no_planted_secret(project, quick_build):
    for path, ignores in PLANTED.values():
        write(project, path, f"# {SECRET}")
        for name, text in ignores.items():
            rules = project / name
            write(project, name, f"{rules.read_text() if rules.is_file() else ''}{text}\n")
    (project / "innocent.txt").symlink_to(project / ".env")
    write(project, "src/prompts.md", "Be brief.")
    (project / "src" / "package").mkdir(exist_ok=True)
    found = contents(quick_build(project).folder)
    assert not [path for path, data in found.items() if SECRET.encode() in data]
    assert found["src/prompts.md"] == b"Be brief."


PEM = "-----BEGIN {}-----\nMIIB\n-----END {}-----\n"


@pytest.mark.parametrize("suffix", ["crt", "CER", "der"])
@pytest.mark.parametrize(
    ("data", "enters"),
    [
        (PEM.replace("{}", "CERTIFICATE").encode(), True),
        (bytes.fromhex("30820310 308201f8 a0030201 02"), True),
        (PEM.replace("{}", "CERTIFICATE").encode() + PEM.replace("{}", "RSA PRIVATE " + "KEY").encode(), False),
        (PEM.replace("{}", "PRIVATE " + "KEY").encode("utf-16"), False),
        (bytes.fromhex("308204a4 0201 00 02820101"), False),
        (bytes.fromhex("3077 0201 01 0420"), False),
    ],
)
def test_certificates_are_included_and_private_keys_with_such_names_excluded(project, suffix, data, enters):
    (project / f"ca.{suffix}").write_bytes(data)
    assert (f"ca.{suffix}" in names(project)) == enters


@pytest.mark.parametrize(
    "path",
    [
        "state.json",
        "src/package/prompts.txt",
        "src/package/modules/examples.csv",
        "data/deep/er/index.bin",
        "src/package/build/events/README.md",
        "src/package/token.txt",
        "src/package/credentials.py",
        "src/package/environment.json",
        "src/package/env.py",
        "src/package/kubeconfig_reader.py",
        "src/package/keys.json",
        "data/backup.csv",
        "helper.py",
    ],
)
def test_files_that_programs_may_read_are_included(project, path):
    write(project, path, "data")
    assert path in names(project)


def test_build_files_are_excluded_from_artifacts(project):
    for name in ("template.yaml", "samconfig.toml", "Makefile", "requirements.txt", "pyproject.toml", "README.md"):
        write(project, name, "text")
    write(project, "dist/x.txt", "text")
    assert all(name == "dspy.config.yaml" or name.startswith("src/") for name in names(project))


def test_a_negated_ignore_rule_includes_its_files(project):
    write(project, ".gitignore", "*.txt\n!kept.txt\n/data/*\n!/data/open\n")
    for path in ("kept.txt", "lost.txt", "data/closed/a.md", "data/open/a.md"):
        write(project, path, "text")
    assert {"kept.txt", "data/open/a.md"} < set(names(project))
    assert not {"lost.txt", "data/closed/a.md"} & set(names(project))


def test_samignore_takes_precedence_over_gitignore(project):
    write(project, ".gitignore", "state.json\nboth.json")
    write(project, ".samignore", "!state.json")
    for path in ("state.json", "both.json"):
        write(project, path, "{}")
    assert "state.json" in names(project)
    assert "both.json" not in names(project)


def test_ignore_files_above_the_repository_root_are_not_applied(project):
    write(project, "../../../.gitignore", "*")
    assert "dspy.config.yaml" in names(project)


def test_ignore_files_above_a_project_outside_a_repository_are_not_applied(project):
    (project.parent.parent / ".git").rmdir()
    write(project, "../.gitignore", "*")
    assert "dspy.config.yaml" in names(project)


def test_a_symbolic_link_includes_only_files_that_are_included_themselves(project, tmp_path):
    write(project, "data/deep/prompts.txt", "text")
    write(project, "data/.env", SECRET)
    write(project, "hidden.txt", SECRET)
    write(project, ".gitignore", "hidden.txt")
    write(tmp_path, "elsewhere/passwords.txt", SECRET)
    links = {
        "src/prompts.txt": project / "data" / "deep" / "prompts.txt",
        "src/data": project / "data",
        "src/data2": project / "src" / "data",
        "env.txt": project / "data" / ".env",
        "visible.txt": project / "hidden.txt",
        "elsewhere.txt": tmp_path / "elsewhere" / "passwords.txt",
        "elsewhere": tmp_path / "elsewhere",
        "broken": project / "nothing",
        "loop": project / "loop",
        "src/up": project,
    }
    for path, target in links.items():
        (project / path).symlink_to(target)
    entering = [name for name in names(project) if not name.endswith((".py", ".yaml"))]
    assert entering == [
        "data/deep/prompts.txt",
        "src/data/deep/prompts.txt",
        "src/data2/deep/prompts.txt",
        "src/prompts.txt",
    ]


def test_a_project_in_an_ignored_folder_can_be_built(project):
    write(project, "../../.gitignore", "apps/\n")
    assert "dspy.config.yaml" in names(project)


def test_an_older_artifact_within_the_project_is_excluded(project, quick_build):
    before = names(project)
    quick_build(project, output=project / "out" / "EchoFunction")
    assert names(project) == before


BRACKETS = ["[ab]", "[!a]", "[b-]", "[c-a]", "[[:alpha:]]", "[^[:upper:]]", "[\\]a]"]
PARTS = st.sampled_from(["a", "b", "c", "*", "**", "?", "*.txt", "c*", "\\a", "x.txt", "***", *BRACKETS])
PATTERNS = st.builds(
    lambda negated, rooted, parts, folder: f"{negated}{rooted}{'/'.join(parts)}{folder}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
# Not ** next to other characters: git parses `a**/b` as `a**` + `/b` or not, depending on the letters before it.
JUNK = st.text("ab!#?[]^-\\ /c.", max_size=6)
IGNORE = st.lists(PATTERNS | JUNK, max_size=4).map("\n".join)
FILES = st.sets(
    st.lists(st.sampled_from(["a", "b", "c", "x.txt", "b.txt", "]", "!a"]), min_size=1, max_size=4).map(tuple)
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if shutil.which("git") is None:
        pytest.skip("git is not installed: its rules are not compared with ours")
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def git_ignores(repository, paths):
    """Return the paths that git ignores."""
    call = ["git", "-C", str(repository), "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z"]
    done = subprocess.run([*call, "--stdin"], input="\0".join(paths).encode(), capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {path for path in done.stdout.decode().split("\0") if path}


@settings(max_examples=150, deadline=None)
@given(paths=FILES, ignores=st.dictionaries(st.sampled_from(["", "a", "b", "a/b"]), IGNORE, min_size=1, max_size=3))
@example(paths={("b", "a")}, ignores={"": "/***\n!b"})
@example(paths={("a", "b")}, ignores={"": "a/**/"})
@example(paths={("b", "a")}, ignores={"": "b\\/*"})
@example(paths={("a", "b"), ("a", "x.txt")}, ignores={"": "*.txt\n!a"})
def test_ignore_rules_give_the_same_result_as_git(repository, paths, ignores):
    for entry in repository.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    made = set()
    for parts in sorted(paths, key=len, reverse=True):
        path = "/".join(parts)
        if not os.path.lexists(repository / path):
            try:
                write(repository, path, "text")
            except OSError:  # a part of it is a file already
                continue
            made.add(path)
    for folder, text in ignores.items():
        if (repository / folder).is_dir():
            write(repository, f"{folder}/.gitignore" if folder else ".gitignore", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_NEVER", [])
        entering = set(names(repository))
    ours = {path for path in made if path not in entering}
    assert ours == git_ignores(repository, made)
