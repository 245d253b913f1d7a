"""The import of DSPy."""

import importlib
import inspect
import re

import dspy
import pytest

from dspy_lambda.dspy_patches.start import dspy_import, quick_stacks
from dspy_lambda.errors import ConfigError


def test_a_missing_optional_package_still_names_its_place_without_a_search_for_sources():
    from dspy.utils.lazy_import import require

    with quick_stacks():
        missing = require("no_package_of_that_name")
        assert inspect.stack()[0].code_context is None
    assert inspect.stack()[0].code_context is not None
    with pytest.raises(ImportError, match=r"no_package_of_that_name[\s\S]*test_start\.py"):
        missing.anything  # noqa: B018


def test_dspy_still_asks_for_the_stack_of_each_missing_package():
    """If it no longer does, `quick_stacks` can be removed."""
    from dspy.utils import lazy_import

    assert "inspect.stack()" in inspect.getsource(lazy_import.require)


@pytest.mark.parametrize("version", ["3.3.1", "2.6.27", "3.3.1.post2"])
def test_an_older_dspy_is_refused_with_what_to_do(monkeypatch, version):
    monkeypatch.setattr(dspy, "__version__", version)
    with (
        pytest.raises(ConfigError, match=rf"DSPy {re.escape(version)} is installed.*pip install 'dspy>=3\.4'"),
        dspy_import(),
    ):
        pass


def test_an_older_dspy_is_reported_by_its_version_and_not_by_a_missing_name(monkeypatch):
    monkeypatch.setattr(dspy, "__version__", "3.3.1")
    with pytest.raises(ConfigError, match=r"needs DSPy 3\.4 or newer"), dspy_import():
        importlib.import_module("dspy.no_such_module")


@pytest.mark.parametrize("version", ["3.4.0", "3.5.0rc1", "3.10.0", "4.0", None])
def test_this_dspy_and_newer_versions_are_accepted(monkeypatch, version):
    monkeypatch.setattr(dspy, "__version__", version)
    with dspy_import():
        pass


def test_a_failed_import_of_dspy_raises_the_original_error():
    with pytest.raises(ImportError, match="no_such_module"), dspy_import():
        importlib.import_module("dspy.no_such_module")
