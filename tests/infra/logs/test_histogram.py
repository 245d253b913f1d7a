from dspy_lambda_infra.logs.durations import Durations
from dspy_lambda_infra.logs.histogram import bins, histogram
from dspy_lambda_infra.terminal import Terminal


def durations(*values):
    found = Durations()
    for value in values:
        found.add(value)
    return found


def test_bins_reach_from_the_shortest_to_the_longest_duration():
    assert bins(durations(0.4, 1, 1.9, 2, 4.9, 10)) == [(0, 1, 1), (1, 2, 2), (2, 5, 2), (5, 10, 0), (10, 20, 1)]
    assert bins(durations(1000, 999.999)) == [(500, 1000, 1), (1000, 2000, 1)]
    assert bins(durations()) == []


def test_bars_are_relative_to_the_fullest_bin_and_every_call_is_visible():
    lines = list(histogram(durations(*[100] * 1_000, 3_000), Terminal(60, colors=False, unicode=True)))
    assert lines[0] == "   100 ms -    200 ms  ████████████████████  1,000"
    assert lines[-1] == "      2 s -       5 s  ▏                     1"
    plain = list(histogram(durations(*[100] * 1_000, 3_000), Terminal(60, colors=False, unicode=False)))
    assert [line.count("#") for line in plain] == [20, 0, 0, 0, 1]
    assert all(map(str.isascii, plain))
