"""Private names of DSPy are used only in `dspy_lambda.dspy_patches`, where each has a guard."""

import ast

import pytest

from dspy_lambda.dspy_patches.table import PATCHES
from tests.conftest import ROOT

HANDLER, INFRA = ROOT / "handler" / "dspy_lambda", ROOT / "infra" / "dspy_lambda_infra"
THE_PLACE = HANDLER / "dspy_patches"
OF_MOTO = INFRA / "local" / "moto_patches.py"
FILES = sorted({*HANDLER.rglob("*.py"), *INFRA.rglob("*.py")} - {*THE_PLACE.rglob("*.py"), OF_MOTO})
# Owners of private names other than DSPy: Python (each explained where it is used), and an object itself.
NOT_DSPY = {"asyncio", "cls", "concurrent", "logging", "os", "self", "sys", "threading"}
# Names with a leading underscore that the patches use: they count as DSPy's, whatever object they are read from.
NAMED = {
    part
    for patch in PATCHES
    for name in patch.names
    for part in (*name.name.split("."), *name.attributes.split())
    if name.module.startswith("dspy.") and part.startswith("_") and not part.startswith("__")
}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def touched(source):
    """The private names of DSPy that a file imports, reads or sets, each with its line."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            if is_foreign(node, own):
                yield node.lineno, node.attr
            continue
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("getattr", "setattr"):
            names = [
                f"dspy.{arg.value}" for arg in node.args[1:2] if isinstance(arg, ast.Constant) and arg.value in NAMED
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "dspy" and any(map(is_private, parts)):
                yield node.lineno, name


def is_foreign(node, own):
    """Whether an attribute is private and belongs to an object of another file."""
    if not is_private(node.attr):
        return False
    root = node.value
    while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
        root = root.func if isinstance(root, ast.Call) else root.value
    if isinstance(root, ast.Name) and root.id == "dspy":
        return True
    if node.attr in NAMED:
        return node.attr not in own or not (isinstance(root, ast.Name) and root.id in NOT_DSPY)
    return node.attr not in own and not (isinstance(root, ast.Name) and root.id in NOT_DSPY)


def test_no_other_module_uses_private_names_of_dspy():
    found = [f"{file.relative_to(ROOT)}:{line}: {name}" for file in FILES for line, name in touched(file.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import dspy._vendor.lm15",
        "from dspy._vendor.lm15.transports import TransportError",
        "def f():\n    from dspy.clients.execution import _engine",
        "import importlib\nimportlib.import_module('dspy._vendor')",
        "import dspy\ndspy.clients.execution._attempt",
        "import dspy\ndspy.LM('m')._engine_store",
        "def bounded(transport):\n    return transport._read_timeout",
        "def bounded(self):\n    return len(self._buf)",
        "def bounded(module):\n    module._limiter = None",
        "def bounded(engine):\n    return getattr(engine, '_target')",
    ],
)
def test_uses_of_private_names_are_found(source):
    assert list(touched(source))


@pytest.mark.parametrize(
    "source",
    [
        "import dspy\ndspy.settings.lm",
        "from dspy.utils.exceptions import LMError",
        "import asyncio\nasyncio._get_running_loop()",
        "class A:\n    def __init__(self):\n        self._own = 1\ndef f(other):\n    return other._own",
        "import dspy\ndspy.__version__",
    ],
)
def test_public_names_and_own_names_are_allowed(source):
    assert not list(touched(source))
