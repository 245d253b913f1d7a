"""If DSPy has changed a name that a patch depends on, there is one warning, DSPy is unpatched there, and calls work."""

import json
import os
import subprocess
import sys

import pytest

from dspy_lambda.dspy_patches.table import PATCHES
from tests.conftest import QUICKSTART, ROOT

# 0.2 s of CPU each. With the locked DSPy, changing the parameters and kind of one function per patch is enough; all of
# them with `make test-dspy`.
EVERY_FUNCTION = "TEST_DSPY" in os.environ
OF_DSPY = sorted({(one.module, one.name) for patch in PATCHES for one in patch.names if one.module.startswith("dspy.")})
FUNCTIONS = sorted(
    {
        (one.module, one.name)
        for patch in PATCHES
        for one in [one for one in patch.names if one.parameters is not None][: None if EVERY_FUNCTION else 1]
        if one.module.startswith("dspy.")
    }
)
ATTRIBUTES = sorted({(one.module, at) for patch in PATCHES for one in patch.names for at in one.attributes.split()})
CASES = [
    ("nothing", "dspy", ""),
    ("not fast", "dspy", ""),
    *(("missing", *where) for where in OF_DSPY),
    *(("parameters", *where) for where in FUNCTIONS),
    *(("kind", *where) for where in FUNCTIONS),
    *(("module missing", module, "") for module in sorted({module for module, _ in OF_DSPY})),
    *(("attribute missing", *where) for where in ATTRIBUTES),
]


def left_out(change, module, name):
    """The patches that depend on the changed name."""
    return {
        patch.name
        for patch in PATCHES
        for one in patch.names
        if one.module == module
        and {
            "nothing": lambda one: False,
            "not fast": lambda one: False,
            "missing": lambda one: name in (one.name, *prefixes(one.name)),
            "parameters": lambda one: one.name == name and (one.parameters is not None or one.attributes),
            "kind": lambda one: one.name == name and one.parameters is not None,
            "module missing": lambda one: True,
            "attribute missing": lambda one: name in one.attributes.split(),
        }[change](one)
    }


def prefixes(name):
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@pytest.fixture(scope="module")
def logs(_model_server):
    """The log lines and answers of a function, by case."""
    _model_server.behave()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DSPY_", "AWS_"))},
        "DSPY_LAMBDA_PROJECT": str(QUICKSTART),
        "DSPY_LAMBDA_API_BASE": _model_server.url,
        "DSPY_LAMBDA_PRECONNECT": "true",
        "OPENAI_API_KEY": "k",
    }
    command = [sys.executable, "-m", "tests.handler.dspy_patches.changed_dspy"]
    done = subprocess.run(
        command, input=json.dumps(CASES), env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_dspy_without_a_patched_name_works_with_one_warning(logs, case):
    lines = logs[case]
    assert [line["raised"] for line in lines if "raised" in line] == []
    assert [sorted(answer) for answer in answers(lines)] == [["answer"], ["summary"]]
    warnings = [(line["level"], set(line["left_out"])) for line in lines if line.get("level") not in (None, "INFO")]
    expected = left_out(*case)
    assert warnings == ([("WARN", expected)] if expected else [])
    assert [call[1] for call in figures(lines)] == ["success"] * 2
    assert figures(lines) == figures(logs["nothing", "dspy", ""])


def test_without_the_patches_for_speed_calls_give_the_same_results(logs):
    fast, slow = logs["nothing", "dspy", ""], logs["not fast", "dspy", ""]
    assert (fast[-1], slow[-1]) == ({"threads": False, "remembers": True}, {"threads": True, "remembers": False})
    assert figures(fast) == figures(slow)
    assert answers(fast) == answers(slow)


def answers(lines):
    return [line["answer"] for line in lines if "answer" in line]


def figures(lines):
    keys = ("program", "outcome", "input_tokens", "output_tokens", "cost_usd", "lm_calls")
    return [[line[key] for key in keys] for line in lines if line.get("message") == "program call"]
