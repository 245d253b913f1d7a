import logging
import sys

import pytest
import yaml

from dspy_lambda.config import load_config
from dspy_lambda.errors import ConfigError
from dspy_lambda.programs import discovery
from dspy_lambda.programs.discovery import load_programs
from tests.support import AECHO, ECHO


def load(project, **options):
    return load_programs(project, load_config(project), **options)


def test_public_module_classes_are_programs_and_others_are_not(make_project):
    project = make_project(
        {
            "one": ECHO + "class _Private(Echo): ...\nclass Text(dspy.Signature):\n    a: str = dspy.InputField()\n",
            "two": "from .one import Echo as Imported\nclass Child(Imported):\n    pass\n",
            "_helpers": "class Hidden(dspy.Module):\n    def forward(self): ...\n",
        }
    )
    programs, failed = load(project)
    assert sorted(programs) == ["Child", "Echo"]
    assert failed == {}


def test_a_single_program_imports_only_its_own_module(make_project):
    project = make_project({"good": ECHO, "broken": "import nothing_of_that_name\n" + AECHO})
    programs, failed = load(project, only="Echo")
    assert (list(programs), failed) == (["Echo"], {})
    package = next(p.name for p in (project / "src").iterdir())
    programs, _ = load(project, only="Echo", module=f"{package}.modules.good")
    assert list(programs) == ["Echo"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import nothing_of_that_name\n" + ECHO,
            ["broken.py:2", "No module named 'nothing_of_that_name'", "dependencies"],
        ),
        (ECHO + "def broken(:\n", ["broken.py", "SyntaxError"]),
        (ECHO + "raise ValueError('sk-secret')\n", ["broken.py:", "ValueError"]),
        (ECHO + "import sys; sys.exit('sk-secret')\n", ["SystemExit"]),
        (ECHO + "import asyncio\nraise asyncio.CancelledError('sk-secret')\n", ["broken.py:", "CancelledError"]),
        (ECHO + "raise GeneratorExit('sk-secret')\n", ["GeneratorExit"]),
        (ECHO + "class Own(BaseException): ...\nraise Own('sk-secret')\n", ["Own"]),
        (ECHO + "raise TypeError('sk-secret')\n", ["broken.py:", "TypeError"]),
        (ECHO + "raise ImportError('sk-secret')\n", ["broken.py:", "ImportError"]),
        (ECHO + "raise ModuleNotFoundError('sk-secret', name='sk-secret')\n", ["ModuleNotFoundError"]),
        (ECHO + "raise SyntaxError('sk-secret', ('sk-secret', 1, 1, ''))\n", ["SyntaxError"]),
        (ECHO + "try:\n    1 / 0\nfinally:\n    raise AttributeError(name='sk-secret')\n", ["AttributeError"]),
        (ECHO + "def fail(): raise TypeError('sk-secret')\nsorted([1, 2], key=lambda _: fail())\n", ["TypeError"]),
        (
            "class _Meta(type):\n    @property\n    def __name__(cls): raise ValueError('sk-secret')\n"
            "class _Odd(Exception, metaclass=_Meta):\n    __class__ = property(lambda self: 1 / 0)\n"
            + ECHO
            + "raise _Odd",
            ["_Odd while"],
        ),
        (ECHO + "from typing import nothing_there\n", ["broken.py:", "cannot import name 'nothing_there'"]),
        (ECHO + "dspy.Predict()\n", ["broken.py:", "TypeError: ", "signature"]),
    ],
)
def test_a_broken_module_fails_only_its_own_programs(make_project, source, says):
    programs, failed = load(make_project({"good": AECHO, "broken": source}))
    assert (list(programs), list(failed)) == (["AEcho"], ["Echo"])
    for part in says:
        assert part in failed["Echo"].error
    assert "sk-secret" not in failed["Echo"].error


def reason(project, program="Echo"):
    return load(project)[1][program].error


def test_a_module_that_shadows_a_package_is_named(make_project):
    project = make_project({"good": AECHO, "broken": "import yaml_of_ours.loader\n" + ECHO})
    (project / "src" / "yaml_of_ours.py").write_text("")
    assert f"{project}/src/yaml_of_ours.py shadows any installed package of that name" in reason(project)
    (project / "src" / "yaml_of_ours.py").unlink()
    (project / "src" / "yaml_of_ours").mkdir()
    sys.modules.pop("yaml_of_ours")
    assert f"{project}/src/yaml_of_ours shadows any installed package of that name" in reason(project)


@pytest.mark.parametrize("imported", ["import yaml.own", "from yaml import own", "from yaml.own import words"])
def test_a_module_shadowed_by_a_loaded_package_is_named_with_that_package(make_project, imported):
    project = make_project({"good": AECHO, "broken": f"{imported}\n{ECHO}"})
    (project / "src" / "yaml").mkdir()
    (project / "src" / "yaml" / "own.py").write_text("words = 3\n")
    hidden = f"{project}/src/yaml is shadowed by a package of that name, {yaml.__file__}: rename the project's module"
    assert hidden in reason(project)


def test_programs_in_a_shadowed_package_are_named_with_the_loaded_package(make_project):
    project = make_project({"good": AECHO})
    (project / "src" / "logging" / "modules").mkdir(parents=True)
    (project / "src" / "logging" / "modules" / "echo.py").write_text(f"import dspy\n{ECHO}")
    hidden = (
        f"{project}/src/logging is shadowed by a package of that name, {logging.__file__}: rename the project's module"
    )
    assert hidden in reason(project)


def test_in_an_artifact_a_missing_package_must_be_added_to_the_dependencies(make_project, monkeypatch):
    project = make_project({"good": AECHO, "broken": "import nothing_of_that_name\n" + ECHO})
    assert reason(project).endswith(
        f"; add it to the project's dependencies in {project}/pyproject.toml or requirements.txt"
    )
    (project / "requirements.txt").touch()
    assert reason(project).endswith(f"; add it to the project's dependencies in {project}/requirements.txt")
    (project / "pyproject.toml").touch()
    assert reason(project).endswith(
        f"; add it to the project's dependencies in {project}/pyproject.toml or requirements.txt"
    )
    (project / "requirements.txt").unlink()
    assert reason(project).endswith(f"; add it to the project's dependencies in {project}/pyproject.toml")
    monkeypatch.setattr(discovery.dspy_lambda, "__file__", f"{project}/dspy_lambda/__init__.py")
    assert "it is not in the artifact: add it to the project's direct dependencies" in reason(project)


def test_a_class_whose_name_raises_does_not_fail_other_programs(make_project):
    source = """
class Meta(type):
    @property
    def __name__(cls):
        raise RuntimeError("sk-secret")
class Hostile(metaclass=Meta):
    pass
"""
    programs, failed = load(make_project({"good": AECHO, "odd": source + ECHO}))
    assert (sorted(programs), failed) == (["AEcho", "Echo"], {})


@pytest.mark.parametrize("error", ["TypeError", "ImportError", "GeneratorExit", "asyncio.CancelledError"])
def test_an_exception_in_a_constructor_fails_only_its_program_and_is_not_quoted(make_project, error):
    source = ECHO.replace("super().__init__()", f"import asyncio; raise {error}('sk-secret')")
    programs, failed = load(make_project({"good": AECHO, "broken": source}))
    assert (list(programs), list(failed)) == (["AEcho"], ["Echo"])
    assert "broken.py:" in failed["Echo"].error
    assert f"{error.rpartition('.')[2]} while" in failed["Echo"].error
    assert "sk-secret" not in failed["Echo"].error


@pytest.mark.parametrize("beside", [
    "def __dir__(): return ['Echo', 'lazy']\ndef __getattr__(name): raise ImportError('sk-secret')\n",
    "class Proxy:\n    @property\n    def __class__(self): raise RuntimeError('sk-secret')\nproxy = Proxy()\n",
])  # fmt: skip
def test_lazy_names_and_proxies_do_not_fail_programs(make_project, beside):
    programs, failed = load(make_project({"good": AECHO, "odd": ECHO + beside}))
    assert (sorted(programs), failed) == (["AEcho", "Echo"], {})


def test_a_keyboard_interrupt_stops_the_discovery(make_project):
    with pytest.raises(KeyboardInterrupt):
        load(make_project({"good": AECHO, "slow": ECHO + "raise KeyboardInterrupt\n"}))


def test_a_broken_module_without_recognizable_classes_is_named_after_its_file(make_project):
    _, failed = load(make_project({"good": ECHO, "odd": "make = 1 / 0\n"}))
    assert list(failed) == ["odd"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "class Needy(dspy.Module):\n    def __init__(self, k): ...\n    def forward(self): ...\n",
            "its __init__ requires k; add to dspy.config.yaml: program_arguments: {Needy: {k: VALUE}}",
        ),
        ("class Empty(dspy.Module):\n    pass\n", "neither forward nor aforward"),
        (
            "import threading\nclass Odd(dspy.Module):\n    def forward(self, x: threading.Thread): ...\n",
            "not a type that can be created from JSON",
        ),
    ],
)
def test_a_class_that_cannot_be_a_program_is_listed_with_the_reason(make_project, source, says):
    programs, failed = load(make_project({"good": ECHO, "bad": source}))
    assert list(programs) == ["Echo"]
    (program,) = failed.values()
    assert says in program.error
    assert "bad.py" in program.error


def test_two_programs_with_the_same_name_are_refused_with_both_files(make_project):
    project = make_project({"one": ECHO, "two": ECHO})
    for options in ({}, {"only": "Echo"}):
        with pytest.raises(ConfigError, match=r"two\.py.*also defined in .*one\.py"):
            load(project, **options)


def test_the_one_program_that_is_broken_missing_or_misplaced_is_a_config_error(make_project):
    project = make_project({"good": ECHO, "broken": "import nothing_of_that_name\n" + AECHO})
    with pytest.raises(ConfigError, match=r"AEcho cannot be loaded: .*nothing_of_that_name"):
        load(project, only="AEcho")
    with pytest.raises(ConfigError, match="no program 'Nope'; the project has: AEcho, Echo"):
        load(project, only="Nope")
    with pytest.raises(ConfigError, match=r"DSPY_LAMBDA_MODULE: there is no module 'a\.b'"):
        load(project, only="Echo", module="a.b")


def test_a_project_without_programs_says_where_they_belong(tmp_path):
    (tmp_path / "dspy.config.yaml").write_text("models: {default: a, registry: {a: {model: m}}}")
    with pytest.raises(ConfigError, match=r"src/<package>/modules/\*\.py"):
        load(tmp_path)


@pytest.mark.parametrize("place", ["src/dspy_lambda.py", "dspy_lambda.py"])
def test_a_file_that_would_shadow_this_package_is_refused(make_project, place):
    project = make_project({"good": ECHO})
    (project / place).touch()
    with pytest.raises(ConfigError, match="rename the file"):
        load(project)


@pytest.fixture
def dspy_cli(tmp_path, monkeypatch):
    """A replacement of dspy-cli's gateways."""
    folder = tmp_path / "site" / "dspy_cli"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "gateway.py").write_text("class Gateway: ...\nclass CronGateway(Gateway): ...\n")
    monkeypatch.syspath_prepend(folder.parent)
    yield
    for name in ("dspy_cli", "dspy_cli.gateway"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("gateway", ["Hourly", "[Hourly, str]"])
def test_a_program_with_gateways_is_refused_by_their_names(make_project, dspy_cli, gateway):
    text = "from dspy_cli.gateway import CronGateway\nclass Hourly(CronGateway): ...\n"
    program = ECHO.replace("    def __init__", f"    gateway = {gateway}\n    def __init__", 1)
    programs, failed = load(make_project({"good": AECHO, "polled": text + program}))
    assert list(programs) == ["AEcho"]
    assert "gateways do not run on Lambda yet, but Echo uses Hourly" in failed["Echo"].error


def test_a_gateway_attribute_that_is_not_a_gateway_is_allowed(make_project):
    program = ECHO.replace("    def __init__", "    gateway = str\n    def __init__", 1)
    programs, failed = load(make_project({"good": program}))
    assert (list(programs), failed) == (["Echo"], {})


def test_a_program_that_imports_dspy_cli_fails_with_the_reason(make_project):
    _, failed = load(make_project({"polled": "import dspy_cli.gateway\n" + ECHO}))
    assert "gateways do not run here yet" in failed["Echo"].error
    assert "dependencies" not in failed["Echo"].error


@pytest.mark.parametrize("place", ["src/dspy_lambda", "dspy_lambda"])
def test_a_folder_that_would_shadow_this_package_is_refused(make_project, place):
    project = make_project({"good": ECHO})
    (project / place).mkdir()
    (project / place / "__init__.py").touch()
    with pytest.raises(ConfigError, match="rename the folder"):
        load(project)


def test_aliases_and_bare_base_classes_are_not_programs(make_project):
    source = (
        "class Base(dspy.Module):\n    def help(self): ...\n" + ECHO.replace("dspy.Module", "Base") + "Other = Echo\n"
    )
    programs, failed = load(make_project({"one": source}))
    assert (list(programs), failed) == (["Echo"], {})


def test_dspys_own_modules_can_be_programs(make_project):
    source = """
    def tool(): ...
    class Agent(dspy.ReAct):
        def __init__(self):
            super().__init__("question -> answer", tools=[tool])
    class Thought(dspy.ProgramOfThought):
        def __init__(self):
            super().__init__("question -> answer")
    class Think(dspy.ChainOfThought):
        def __init__(self):
            super().__init__("question -> answer")
    """
    programs, failed = load(make_project({"own": source}))
    assert failed == {}
    for program in programs.values():
        assert program.schemas.inputs.validate({"question": "q"}) == {"question": "q"}


def test_a_class_name_in_a_docstring_is_ignored(make_project):
    project = make_project(
        {"echo": ECHO, "other": '"""Not this one:\n\nclass Echo(dspy.Module):\n    ...\n"""\n' + AECHO}
    )
    programs, _ = load(project, only="Echo")
    assert list(programs) == ["Echo"]


@pytest.mark.parametrize(
    ("predictor", "says"),
    [
        ("predic", r"predictor_models\.Pair\.predic: no such predictor; the program has: predict, steps\[0\]\.predict"),
        ("many[0]", r"predictor_models\.Pair\.many\[0\]: this predictor is in an object that all calls share"),
    ],
)
def test_a_predictor_without_a_model_of_its_own_is_an_error_at_load(make_project, make_serve, predictor, says):
    pair = """
    class Pair(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("a -> b")
            self.steps = [dspy.ChainOfThought("a -> b")]
            self.many = [dspy.Predict("a -> b")] * 1001
        def forward(self, a: str):
            return a
    """
    project = make_project({"pair": pair}, predictor_models={"Pair": {predictor: "fast"}})
    with pytest.raises(ConfigError, match=says):
        make_serve(project, DSPY_LAMBDA_PROGRAM="Pair")
