import pytest

from benchmarks.run import regressions


@pytest.mark.parametrize(
    ("ratio", "is_regression"), [(0.5, False), (1.0, False), (1.14, False), (1.16, True), (float("nan"), True)]
)
def test_a_ratio_15_percent_worse_than_the_baseline_is_a_regression(ratio, is_regression):
    assert bool(regressions({"a": ratio}, {"a": 1.0})) is is_regression


def test_a_missing_ratio_is_a_regression_and_a_new_one_is_not():
    assert regressions({"new": 9.0}, {"gone": 1.0}) == ["gone: nan, was 1.00"]
