import math
import random

import pytest

from dspy_lambda_infra.logs.durations import ERROR, EXACT, Durations


def nearest_rank(values, percent):
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def durations(values):
    found = Durations()
    for value in values:
        found.add(value)
    return found


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, EXACT])
def test_percentiles_of_few_calls_are_exact(count):
    values = [random.Random(count).lognormvariate(5, 2) for _ in range(count)]
    found = durations(values)
    assert found.percentiles(50, 95, 99, 100) == [nearest_rank(values, p) for p in (50, 95, 99, 100)]
    assert (found.count, found.most) == (count, max(values))


@pytest.mark.parametrize("parts", [1, 7])
def test_percentiles_of_many_calls_are_within_the_stated_error_also_when_merged(parts):
    rng = random.Random(2)
    values = [rng.lognormvariate(5, 3) for _ in range(30_000)]
    found = Durations()
    for part in range(parts):
        found.merge(durations(values[part::parts]))
    assert found.count == len(values)
    for percent, value in zip((1, 50, 95, 99, 100), found.percentiles(1, 50, 95, 99, 100), strict=True):
        assert value == pytest.approx(nearest_rank(values, percent), rel=ERROR * 1.0001)


def test_any_duration_is_kept_in_a_bounded_number_of_buckets():
    found = durations([10.0 ** random.Random(n).uniform(-20, 200) for n in range(20_000)] + [0.0])
    assert sum(1 for _ in found.items()) < 2_800
    assert sum(count for _, count in found.items()) == 20_001


def test_no_calls_have_no_percentiles():
    assert all(map(math.isnan, Durations().percentiles(50, 99)))
