import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.requirements import Requirements, read_requirements


def listed(root):
    return [str(requirement) for requirement in read_requirements(root).listed]


def test_handler_requirements_exclude_the_cli_extra(tmp_path):
    found = read_requirements(tmp_path)
    names = {Requirement(line).name for line in found.own}
    assert {"dspy", "fastapi", "mangum", "aws-lambda-powertools"} <= names
    assert not names & {"moto", "boto3", "uv", "awslambdaric"}
    assert (found.project, found.listed, found.files) == (None, (), ())


def test_pyproject_takes_precedence_over_requirements_txt(tmp_path):
    (tmp_path / "requirements.txt").write_text("plain\n")
    assert listed(tmp_path) == ["plain"]
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert listed(tmp_path) == ["plain"]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["better[fast]>=2"]\n')
    assert listed(tmp_path) == ["better[fast]>=2"]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = []\n')
    assert listed(tmp_path) == []


ODD = """\
# a comment
--extra-index-url https://user:password@example.com/simple
--pre

plain
pinned==1.0  # why
Some_Name.Extra[one, two]>=1,<2 ; python_version < "4"
hashed==2.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
one-line==3.0 --hash=sha256:cc
addressed @ https://example.com/addressed-1.0-py3-none-any.whl#sha256=dd
-r more/others.txt
-c limits.txt
"""


def test_supported_requirements_txt_lines_are_parsed(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(ODD)
    (tmp_path / "more" / "others.txt").write_text("other\n--requirement=../requirements.txt\n--find-links ../wheels\n")
    (tmp_path / "limits.txt").write_text("limited<3\n")
    (tmp_path / "wheels").mkdir()
    found = read_requirements(tmp_path)
    assert [str(requirement) for requirement in found.listed] == [
        "plain",
        "pinned==1.0",
        'Some_Name.Extra[one,two]<2,>=1; python_version < "4"',
        "hashed==2.0",
        "one-line==3.0",
        "addressed @ https://example.com/addressed-1.0-py3-none-any.whl#sha256=dd",
        "other",
    ]
    assert {path.name for path in found.files} == {"requirements.txt", "others.txt", "limits.txt"}
    assert found.indexes[:2] == ("--extra-index-url", "https://user:password@example.com/simple")
    assert found.indexes[2:] == ("--find-links", str(tmp_path / "wheels"))


@pytest.mark.parametrize(
    ("file", "data", "says"),
    [
        ("pyproject.toml", b"[project\n", "pyproject.toml: cannot be read"),
        ("pyproject.toml", b"\xff\xfe[\x00", "pyproject.toml: cannot be read: it is not UTF-8"),
        ("pyproject.toml", b'[project]\ndependencies = "requests"', "must be a list"),
        ("pyproject.toml", b"[project]\ndependencies = [1]", "must be a list"),
        ("pyproject.toml", b'[project]\ndependencies = ["not a requirement"]', "'not a requirement'"),
        ("requirements.txt", "plain\n".encode("utf-16"), "requirements.txt: cannot be read: it is not UTF-8"),
        ("requirements.txt", b"-r nowhere.txt", "nowhere.txt: cannot be read: No such file"),
        ("requirements.txt", b"./folder", "'./folder' does not name a distribution"),
        ("requirements.txt", b"https://example.com/a.whl", "`name @ URL`"),
    ],
)
def test_an_unreadable_requirements_file_or_line_is_named(tmp_path, file, data, says):
    (tmp_path / file).write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(says)):
        read_requirements(tmp_path)


@pytest.mark.parametrize(
    "text", ['[project]\nname = "x"\ndynamic = ["dependencies"]\n', '[tool.poetry.dependencies]\ndspy = "*"\n']
)
def test_a_pyproject_with_dynamic_dependencies_requires_requirements_txt(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"export them to requirements\.txt"):
        read_requirements(tmp_path)
    (tmp_path / "requirements.txt").write_text("requests\n")
    assert [requirement.name for requirement in read_requirements(tmp_path).listed] == ["requests"]


def test_a_project_key_that_is_not_a_table_has_no_dependencies(tmp_path):
    (tmp_path / "pyproject.toml").write_text("project = 3\n")
    assert listed(tmp_path) == []


NAMES = st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
EXTRAS = st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), max_size=2).map(
    lambda extras: f"[{','.join(extras)}]" if extras else ""
)
LINES = st.builds(
    lambda name, extras, version, marker: (f"{name}{extras}{version}", marker),
    NAMES,
    EXTRAS,
    st.sampled_from(["", "==1.0", ">=1,<2", "~=1.4", " != 3", "==1.*"]),
    st.sampled_from(["", "; python_version > '3'", " ; sys_platform=='linux' and extra=='x'"]),
)
NOISE = st.sampled_from(
    [
        "",
        "   ",
        "# comment",
        "#comment==1",
        "--pre",
        "--prefer-binary",
        "--index-url https://example.com/simple",
        "-i=x",
    ]
)
ENDS = st.sampled_from(["", "  ", " # comment", " --hash=sha256:aa", " \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb"])


@given(st.lists(st.tuples(NOISE, LINES, ENDS), max_size=5))
def test_generated_requirements_txt_files_parse_to_their_requirements(tmp_path_factory, lines):
    folder = tmp_path_factory.getbasetemp()
    text = "".join(f"{noise}\n{plain}{marker}{end}\n" for noise, (plain, marker), end in lines)
    (folder / "requirements.txt").write_text(text)
    assert listed(folder) == [str(Requirement(plain + marker)) for _, (plain, marker), _ in lines]


@pytest.mark.parametrize("line", ["-e ./own", "--editable=./own", "--no-binary :all:"])
def test_a_requirement_line_that_would_run_setup_py_is_refused(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"plain\n{line}\n")
    with pytest.raises(ConfigError, match=r"would build a distribution, which runs its setup\.py; use a wheel"):
        read_requirements(tmp_path)


@pytest.mark.parametrize("option", ["", "-e ", "--editable="])
@pytest.mark.parametrize("user", ["planted", "oauth2:planted", "planted:x-oauth-basic", "a@b.c:planted"])
def test_requirement_errors_do_not_repeat_a_token_in_a_url(tmp_path, option, user):
    (tmp_path / "requirements.txt").write_text(f"{option}git+https://{user}@github.com/a/b.git@main\n")
    with pytest.raises(ConfigError) as error:
        read_requirements(tmp_path)
    assert "git+https://github.com/a/b.git@main" in str(error.value)
    assert "planted" not in str(error.value)


def test_a_functions_direct_requirements_depend_on_its_sources():
    requirements = Requirements(
        ("dspy>=3", "fastapi", "mangum>=0.22", "pyyaml"),
        listed=tuple(map(Requirement, ["dspy-cli", "DSPy_Lambda[cli]", "requests[socks]>=2"])),
    )
    assert [str(root) for root in requirements.roots(http=True)] == [
        "dspy>=3",
        "fastapi",
        "mangum>=0.22",
        "pyyaml",
        "requests[socks]>=2",
    ]
    assert {root.name for root in requirements.roots(http=False)} == {"dspy", "pyyaml", "requests"}
