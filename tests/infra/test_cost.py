import pytest

from dspy_lambda_infra.cost import monthly_base
from dspy_lambda_infra.project import load_project
from tests.support import ECHO

METRICS, DASHBOARD = 10 * 0.30, 3.00


@pytest.fixture
def base(make_project):
    """What a project of one program costs a month without a call, by its `lambda` section."""
    return lambda settings: monthly_base(load_project(make_project({"echo": ECHO}, **{"lambda": settings})))


@pytest.mark.parametrize(("fifo", "usd"), [(False, 0.2592), (True, 0.324)])
def test_an_idle_queue_is_polled_648000_times_a_month(base, fifo, usd):
    settings = {"alarms": False, "defaults": {"sqs": {"fifo": fifo}}}
    assert base(settings) == pytest.approx(DASHBOARD + METRICS + usd)


def test_an_alarm_costs_by_the_metrics_that_it_reads(base):
    # Errors 2, Failures 2, Throttles, Duration, Concurrency, Spend; and the on-failure queue's.
    assert base({}) == pytest.approx(DASHBOARD + METRICS + 9 * 0.10)


def test_the_alarms_of_a_rollout_are_there_without_the_others(base):
    assert base({"alarms": False, "defaults": {"deployment": {}}}) == pytest.approx(DASHBOARD + METRICS + 4 * 0.10)
