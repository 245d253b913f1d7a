import ast
import dataclasses
import re

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import TABLE, Settings
from dspy_lambda.variables import choice, flag, whole_number
from tests.conftest import QUICKSTART, ROOT

NAME = "DSPY_LAMBDA_X"


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES", "on", " true "])
def test_words_for_on_switch_on(text):
    assert flag({NAME: text}, NAME) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "off", "Off"])
def test_words_for_off_switch_off(text):
    assert flag({NAME: text}, NAME, default=True) is False


@pytest.mark.parametrize("settings", [{}, {NAME: ""}, {NAME: " "}])
@pytest.mark.parametrize("default", [True, False])
def test_an_unset_or_empty_variable_is_the_default(settings, default):
    assert flag(settings, NAME, default=default) is default


@pytest.mark.parametrize("text", ["ture", "2", "-1", "t", "none", "enabled"])
def test_an_unknown_switch_word_is_an_error_that_names_the_variable(text):
    with pytest.raises(ConfigError, match=rf"^{NAME}: must be true or false \(or 1, 0, yes, no, on, off\), not "):
        flag({NAME: text}, NAME)


def test_a_whole_number_is_read_and_anything_else_is_an_error():
    assert whole_number({NAME: "7"}, NAME, default=5) == 7
    assert whole_number({NAME: ""}, NAME, default=5) == 5
    with pytest.raises(ConfigError, match=f"^{NAME}: must be a whole number, not '1.5'"):
        whole_number({NAME: "1.5"}, NAME, default=5)
    for digits in (16, 400, 5000):
        with pytest.raises(ConfigError, match=f"^{NAME}: must be a whole number, not '9{{16,40}}'"):
            whole_number({NAME: "9" * digits}, NAME, default=5)


def test_a_choice_accepts_only_its_words():
    assert choice({}, NAME, "none", ("none", "log")) == "none"
    assert choice({NAME: "Log"}, NAME, "none", ("none", "log")) == "log"
    with pytest.raises(ConfigError, match=f"^{NAME}: must be one of none, log, not 'all'"):
        choice({NAME: "all"}, NAME, "none", ("none", "log"))


@pytest.mark.parametrize("name", ["DSPY_LAMBDA_FAST", "DSPY_LAMBDA_PRECONNECT", "DSPY_LAMBDA_LOG_PRIVATE"])
def test_an_environment_with_a_misspelled_switch_is_not_built(make_serve, name):
    with pytest.raises(ConfigError, match=f"^{name}: must be true or false"):
        make_serve(QUICKSTART, **{name: "ture"})


LAMBDAS_OWN = re.compile(r"AWS_|LAMBDA_|TMPDIR")


@pytest.mark.parametrize("variables", [{}, {row.variable: "" for row in TABLE}])
def test_settings_that_are_empty_or_not_set_have_their_defaults(variables):
    settings = Settings.from_environment(variables)
    assert settings == Settings(variables=variables)


def test_settings_are_read_from_their_variables():
    variables = {
        "DSPY_LAMBDA_PROGRAM": "Answer",
        "DSPY_LAMBDA_SOURCES": "http, sqs",
        "DSPY_LAMBDA_FAST": "off",
        "DSPY_LAMBDA_IDLE_SECONDS": "7",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    }
    settings = Settings.from_environment(variables)
    assert (settings.program, settings.sources, settings.fast) == ("Answer", ("http", "sqs"), False)
    assert (settings.idle_seconds, settings.memory_mb) == (7, 512)
    assert settings.core_share == pytest.approx(512 / 1769)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().fast = False


def test_a_raised_integration_limit_holds_for_both_kinds_of_api():
    assert Settings().integration_limits == {"rest": 29.0, "http": 30.0}
    raised = Settings.from_environment({"DSPY_LAMBDA_INTEGRATION_SECONDS": "120"})
    assert raised.integration_limits == {"rest": 120.0, "http": 120.0}


def test_an_unknown_variable_is_a_warning_that_suggests_the_closest_one(make_serve, records):
    make_serve(QUICKSTART, DSPY_LAMBDA_PROGRAMM="Answer", DSPY_LAMBDA_QQ="1", OTHER="x")
    warned = [line for line in records().lines if line.get("message") == "ignored an unknown variable"]
    assert [(line["variable"], line.get("did_you_mean")) for line in warned] == [
        ("DSPY_LAMBDA_PROGRAMM", "DSPY_LAMBDA_PROGRAM"),
        ("DSPY_LAMBDA_QQ", None),
    ]


def test_every_setting_has_a_variable_of_its_own_and_a_line_of_documentation():
    assert len({row.variable for row in TABLE}) == len(TABLE)
    assert all(row.doc.endswith((".", "it.")) and "\n" not in row.doc for row in TABLE)
    assert {row.field for row in TABLE} == {f.name for f in dataclasses.fields(Settings)} - {"variables", "unknown"}


def test_every_variable_that_a_user_may_set_is_documented():
    texts = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    assert [r.variable for r in TABLE if not LAMBDAS_OWN.match(r.variable) and f"`{r.variable}`" not in texts] == []


def test_only_the_settings_module_names_variables():
    named = {
        f"{path.relative_to(ROOT)}: {node.value}"
        for path in (ROOT / "handler").rglob("*.py")
        if path.name != "settings.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"DSPY_LAMBDA_\w+", node.value)
    }
    assert named == set()
