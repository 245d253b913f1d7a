"""Which module imports which, read from the sources."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"dspy_lambda": ROOT / "handler", "dspy_lambda_infra": ROOT / "infra"}


def module_name(path, folder):
    parts = list(path.relative_to(folder).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources():
    """Parse the modules of both packages, by name."""
    return {
        module_name(path, folder): ast.parse(path.read_text(), filename=str(path))
        for package, folder in PACKAGES.items()
        for path in sorted((folder / package).rglob("*.py"))
    }


MODULES = sources()


def is_for_hints(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(tree, *, within_functions):
    """Yield the imports that run: those for type hints never do, those in functions only when called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif is_for_hints(node):
            yield from (found for other in node.orelse for found in import_nodes(other, within_functions=False))
        elif within_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_nodes(node, within_functions=within_functions)


def imported(name, tree, modules, *, within_functions=False):
    """Return the modules of these packages that a module imports, not counting its own package."""
    found = set()
    for node in import_nodes(tree, within_functions=within_functions):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{name}: a relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                found.add(target)
    return found


def graph(modules, **options):
    return {name: imported(name, tree, modules, **options) for name, tree in modules.items()}


def find_cycle(imports):
    """Return one import cycle as a list of modules, or None."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(imports[name]):
            if cycle := visit(other):
                return cycle
        path.pop()
        done.add(name)
        return None

    return next((cycle for name in sorted(imports) if (cycle := visit(name))), None)


def test_an_import_cycle_is_found_and_named():
    modules = {
        "a": ast.parse("import b"),
        "b": ast.parse("from c import x"),
        "c": ast.parse("if 1:\n    import a"),
        "d": ast.parse("import a"),
    }
    assert find_cycle(graph(modules)) == ["a", "b", "c", "a"]
    assert find_cycle({"a": {"b"}, "b": set()}) is None


def test_type_checking_and_function_level_imports_are_distinguished():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\n"
    modules = {"a": ast.parse(text), "b": ast.parse(""), "c": ast.parse("")}
    assert graph(modules)["a"] == set()
    assert graph(modules, within_functions=True)["a"] == {"c"}


def test_modules_have_no_import_cycle():
    cycle = find_cycle(graph(MODULES))
    assert cycle is None, " -> ".join(cycle)


def test_function_level_imports_close_no_import_cycle():
    imports = graph(MODULES, within_functions=True)
    cycle = find_cycle(imports)
    assert cycle is None, " -> ".join(cycle)


def test_the_handler_never_imports_the_infra_package():
    found = [
        f"{name} -> {target}"
        for name, targets in graph(MODULES, within_functions=True).items()
        for target in targets
        if name.partition(".")[0] == "dspy_lambda" and target.partition(".")[0] != "dspy_lambda"
    ]
    assert found == []


def test_the_handler_never_calls_print():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if name.partition(".")[0] == "dspy_lambda"
        and isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert found == []
