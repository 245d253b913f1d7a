import json
import math
import re
from datetime import datetime

import pytest

from dspy_lambda.telemetry.lines import NULL, MetricLevel, line_to_json, readable, to_json


class Fails:
    def __str__(self):
        raise RuntimeError("no text")


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        ({"a": [math.inf, 1, None, NULL, True]}, {"a": ["inf", 1, None, None, True]}),
        pytest.param(10**5000, "a number of 16610 bits", id="5,000 digits"),
        (Fails(), "unknown"),
        ([math.nan, Fails(), {Fails(): 1}], ["nan", "unknown", {"unknown": 1}]),
        (NULL, None),
        (1.5, 1.5),
    ],
)
def test_a_line_is_json_whatever_it_holds(value, written):
    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(to_json({"v": value}), parse_constant=refuse) == {"v": written}


def test_a_cycle_in_a_line_is_cut_off():
    assert "..." in to_json({"v": CYCLE})


# As Lambda reads them.

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def lambda_level(line: dict) -> str:
    """Return the level that Lambda's documentation says a line on standard output has."""
    level, stamp = str(line.get("level", "")).upper(), str(line.get("timestamp", ""))
    if level not in LEVELS or not re.match(r"\d{4}-\d\d-\d\dT", stamp):
        return "INFO"
    return level if datetime.fromisoformat(stamp).tzinfo else "INFO"


def is_kept(line: dict, minimum: str) -> bool:
    return LEVELS.index(lambda_level(line)) >= LEVELS.index(minimum)


@pytest.mark.parametrize(
    ("python", "word"),
    [("DEBUG", "DEBUG"), ("INFO", "INFO"), ("WARNING", "WARN"), ("ERROR", "ERROR"), ("CRITICAL", "FATAL")],
)
def test_a_line_has_lambdas_word_for_its_level(python, word):
    line = json.loads(line_to_json({"level": python, "timestamp": "2026-01-31T12:00:00.000+00:00"}))
    assert line["level"] == lambda_level(line) == word


@pytest.mark.parametrize("stamp", ["2026-01-31 12:00:00,000+0000", "2026-01-31T12:00:00.000", 1769860800, None])
def test_a_programs_own_logger_keeps_its_level_whatever_its_timestamps_format(stamp):
    line = {"level": "ERROR", "timestamp": stamp, "message": "m"}
    assert lambda_level(line) == "INFO"
    assert lambda_level(readable(line)) == "ERROR"
    assert readable(line)["message"] == "m"


@pytest.mark.parametrize("stamp", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123+02:00"])
def test_a_valid_timestamp_is_kept(stamp):
    assert readable({"level": "warning", "timestamp": stamp}) == {"level": "WARN", "timestamp": stamp}


@pytest.mark.parametrize("line", [{}, {"a": 1}, {"level": 3}, {"level": None, "timestamp": "x"}, {"_aws": {}}])
def test_other_objects_stay_as_they_are(line):
    assert readable(line) == line


@pytest.mark.parametrize("minimum", LEVELS)
def test_lambda_keeps_metrics_at_every_level(minimum):
    blob = {"_aws": {}} | MetricLevel({"AWS_LAMBDA_LOG_LEVEL": minimum}).fields()
    assert is_kept(blob, minimum)


def test_metrics_have_no_level_where_lambda_keeps_info():
    assert MetricLevel({}).fields() == MetricLevel({"AWS_LAMBDA_LOG_LEVEL": "INFO"}).fields() == {}
