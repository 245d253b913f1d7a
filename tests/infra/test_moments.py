from datetime import datetime

import pytest

from dspy_lambda_infra.moments import moment


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("1.5d", 129_600), ("1w", 604_800)]
)
def test_a_time_ago_counts_back_from_now(text, seconds):
    assert moment(text, now=1_000_000) == 1_000_000 - seconds


def test_iso_times_have_an_offset_or_are_local():
    assert moment("2026-07-01T12:00:00Z") == 1_782_907_200
    assert moment("2026-07-01T14:00:00+02:00") == 1_782_907_200
    assert moment("2026-07-01") == datetime(2026, 7, 1).timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "15", "-5m", "m", "2026-13-01", "9" * 400 + "m"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(ValueError, match="15m, 2h, 3d"):
        moment(text)
