"""Logging handlers: one JSON line for each record, whatever it holds, and no texts of libraries."""

from __future__ import annotations

import logging

import pytest

from dspy_lambda.telemetry.handlers import LineHandler, RedactMessages


@pytest.fixture
def lines():
    return []


@pytest.fixture
def logger(lines):
    handler = LineHandler(lambda level, line: lines.append((level, line)), lambda: {"program": "Answer"})
    handler.setFormatter(logging.Formatter("%(program)s %(logger)s %(message)s"))
    found = logging.Logger("lib")
    found.addHandler(handler)
    return found


def test_a_line_names_its_logger_and_the_call(logger, lines):
    logger.warning("found %d", 3)
    assert lines == [(logging.WARNING, "Answer lib found 3\n")]


def test_arguments_that_do_not_fit_cost_the_text_but_not_the_line(logger, lines):
    logger.warning("found %d", "three")
    ((_, line),) = lines
    assert line.startswith("Answer lib a message that cannot be formatted: lib, line ")


def test_a_librarys_text_is_removed_with_its_extra_fields(logger, lines):
    logger.handlers[0].addFilter(RedactMessages())
    logger.warning("the answer is %s", "private", extra={"prompt": "private"})
    ((_, line),) = lines
    assert "private" not in line
    assert line.startswith("Answer lib lib, line ")
