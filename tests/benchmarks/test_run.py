import pytest

from benchmarks.run import relapses


@pytest.mark.parametrize(
    ("ratio", "relapsed"), [(0.5, False), (1.0, False), (1.14, False), (1.16, True), (float("nan"), True)]
)
def test_fifteen_percent_worse_than_the_baseline_is_a_relapse(ratio, relapsed):
    assert bool(relapses({"a": ratio}, {"a": 1.0})) is relapsed


def test_a_ratio_that_is_no_more_measured_is_a_relapse_and_a_new_one_is_none():
    assert relapses({"new": 9.0}, {"gone": 1.0}) == ["gone: nan, was 1.00"]
