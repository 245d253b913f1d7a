import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import choice, flag, whole_number
from tests.conftest import QUICKSTART

NAME = "DSPY_LAMBDA_X"


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES", "on", " true "])
def test_words_that_switch_on(text):
    assert flag({NAME: text}, NAME) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "off", "Off"])
def test_words_that_switch_off(text):
    assert flag({NAME: text}, NAME, default=True) is False


@pytest.mark.parametrize("settings", [{}, {NAME: ""}, {NAME: " "}])
@pytest.mark.parametrize("default", [True, False])
def test_what_is_not_set_or_empty_is_the_default(settings, default):
    assert flag(settings, NAME, default=default) is default


@pytest.mark.parametrize("text", ["ture", "2", "-1", "t", "none", "enabled"])
def test_any_other_word_is_an_error_that_names_the_variable(text):
    with pytest.raises(ConfigError, match=rf"^{NAME}: must be true or false \(or 1, 0, yes, no, on, off\), not "):
        flag({NAME: text}, NAME)


def test_a_whole_number_is_read_and_anything_else_named():
    assert whole_number({NAME: "7"}, NAME, default=5) == 7
    assert whole_number({NAME: ""}, NAME, default=5) == 5
    with pytest.raises(ConfigError, match=f"^{NAME}: must be a whole number, not '1.5'"):
        whole_number({NAME: "1.5"}, NAME, default=5)
    for digits in (16, 400, 5000):
        with pytest.raises(ConfigError, match=f"^{NAME}: must be a whole number, not '9{{16,40}}'"):
            whole_number({NAME: "9" * digits}, NAME, default=5)


def test_a_choice_is_one_of_its_words():
    assert choice({}, NAME, ("none", "log")) == "none"
    assert choice({NAME: "Log"}, NAME, ("none", "log")) == "log"
    with pytest.raises(ConfigError, match=f"^{NAME}: must be one of none, log, not 'all'"):
        choice({NAME: "all"}, NAME, ("none", "log"))


@pytest.mark.parametrize("name", ["DSPY_LAMBDA_FAST", "DSPY_LAMBDA_PRECONNECT", "DSPY_LAMBDA_LOG_PRIVATE"])
def test_an_environment_with_a_misspelled_switch_is_not_built(make_serve, name):
    with pytest.raises(ConfigError, match=f"^{name}: must be true or false"):
        make_serve(QUICKSTART, **{name: "ture"})
