import json
import math

import pytest

from dspy_lambda.telemetry.lines import NULL, to_json


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
