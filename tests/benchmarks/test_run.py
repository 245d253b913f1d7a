import pytest

from benchmarks.run import relapses


@pytest.mark.parametrize(
    ("ratio", "relapsed"), [(0.5, False), (1.0, False), (1.14, False), (1.16, True), (float("nan"), True)]
)
def test_a_ratio_15_percent_worse_than_the_baseline_is_a_regression(ratio, relapsed):
    assert bool(relapses({"a": ratio}, {"a": 1.0})) is relapsed


def test_a_missing_ratio_is_a_regression_and_a_new_one_is_not():
    assert relapses({"new": 9.0}, {"gone": 1.0}) == ["gone: nan, was 1.00"]
