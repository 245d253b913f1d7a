import pytest

from dspy_lambda.telemetry.units import UNITS
from dspy_lambda_infra.cost import cost_table, monthly_base, monthly_metrics
from dspy_lambda_infra.project import load_project
from tests.conftest import ROOT
from tests.support import AECHO, ECHO

DASHBOARD = 3.00


@pytest.fixture
def base(make_project):
    """Return what a project with one program costs per month without a call, given its `lambda` section."""
    return lambda settings: monthly_base(load_project(make_project({"echo": ECHO}, **{"lambda": settings})))


@pytest.mark.parametrize(("fifo", "usd"), [(False, 0.2592), (True, 0.324)])
def test_an_idle_queue_is_polled_648000_times_a_month(base, fifo, usd):
    settings = {"alarms": False, "defaults": {"sqs": {"fifo": fifo}}}
    assert base(settings) == pytest.approx(DASHBOARD + usd)


def test_an_alarm_is_billed_per_metric_that_it_reads(base):
    # Errors 2, Failures 2, Throttles, Duration, Concurrency, Spend; and the on-failure queue's.
    assert base({}) == pytest.approx(DASHBOARD + 9 * 0.10)


def test_rollout_alarms_are_billed_even_if_other_alarms_are_disabled(base):
    assert base({"alarms": False, "defaults": {"deployment": {}}}) == pytest.approx(DASHBOARD + 4 * 0.10)


def test_a_snapshot_is_billed_by_its_functions_memory(base):
    settings = {"alarms": False, "defaults": {"snap_start": True, "memory_mb": 2048}}
    assert base(settings) == pytest.approx(DASHBOARD + 7.80, abs=0.005)


def test_custom_metrics_cost_nothing_before_the_first_call(make_project):
    """Each program has as many as the page on costs says."""
    assert f"up to {len(UNITS)} custom metrics" in (ROOT / "docs" / "operate.md").read_text()
    project = load_project(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": {"alarms": False}}))
    assert monthly_base(project) == DASHBOARD
    assert monthly_metrics(project) == pytest.approx(2 * len(UNITS) * 0.30)
    table = cost_table(project)
    assert "Without a call, the stack costs up to 3.00 USD a month" in table
    assert f"custom metrics add up to {monthly_metrics(project):.2f}" in table
