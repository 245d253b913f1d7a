import math

import pytest

from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.logs.timeline import MAX_INTERVALS, Timeline
from tests.infra.logs.lines import line

RECORD = read(line())


def timeline(*seconds, outcome="success"):
    found = Timeline()
    for at in seconds:
        found.add(RECORD._replace(at=at, outcome=outcome))
    return found


def test_calls_are_counted_each_in_its_second():
    found = list(timeline(100.2, 100.9, 102.0, outcome="deadline").intervals())
    assert [(start, one.calls, one.errors) for start, one in found] == [(100, 2, 2), (101, 0, 0), (102, 1, 1)]


@pytest.mark.parametrize("length", [119, 120, 3_000, 90_000, 10**7, 10**12])
def test_intervals_become_longer_so_that_there_are_never_too_many(length):
    moments = [1_782_907_200 + length * n / 50 for n in range(51)]
    for ordered in (moments, moments[::-1]):
        found = timeline(*ordered)
        intervals = list(found.intervals())
        assert len(intervals) <= MAX_INTERVALS
        assert sum(one.calls for _, one in intervals) == 51
        assert sum(one.durations.count for _, one in intervals) == 51
        for start, one in intervals:
            assert one.calls == sum(start <= moment < start + found.seconds for moment in moments)


def test_calls_without_a_time_are_left_out():
    assert list(timeline(math.nan).intervals()) == []
