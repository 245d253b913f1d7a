"""Checks of what an operator sees and does: metrics, alarms, dashboard, schedules, a rotation, an update."""

from __future__ import annotations

import json
import secrets
import threading
import time
from typing import Any

from dspy_lambda.settings import METRICS_NAMESPACE
from dspy_lambda_infra.verify.checks import until, waiting
from dspy_lambda_infra.verify.project import PROGRAM, SCHEDULED, key_parameter
from dspy_lambda_infra.verify.stack import Answer, Seen, Stack


def metrics_arrive(stack: Stack) -> Seen:
    """EMF lines become metrics under the stack's name."""
    dimensions = [{"Name": "service", "Value": stack.name}, {"Name": "program", "Value": PROGRAM}]
    for _ in until(300):
        now = time.time()
        found = stack.client("cloudwatch").get_metric_statistics(
            Namespace=METRICS_NAMESPACE,
            MetricName="Calls",
            Dimensions=dimensions,
            StartTime=now - 3600,
            EndTime=now + 60,
            Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]
        if (calls := sum(point["Sum"] for point in found)) >= 10:
            return True, f"{calls:.0f} calls"
    return False, "no metric after 5 minutes"


def an_alarm_rises(stack: Stack) -> Seen:
    """The dead-letter queue's alarm goes off."""
    prefix = f"{stack.name}-{PROGRAM}DeadLetterAlarm"
    state = "not found"
    for _ in until(900):
        alarms = stack.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
        state = alarms[0]["StateValue"] if alarms else state
        if state == "ALARM":
            return True, "ALARM"
    return False, f"{state} after 15 minutes"


def the_dashboard_shows_metrics_that_exist(stack: Stack) -> Seen:
    """The dashboard's series of calls, durations and tokens match metrics in CloudWatch."""
    client = stack.client("cloudwatch")
    name = f"{stack.name}-{stack.session.region_name}"
    body = json.loads(client.get_dashboard(DashboardName=name)["DashboardBody"])
    series = [row for widget in body["widgets"] for row in widget["properties"].get("metrics", [])]
    wanted = {row[1] for row in series if row[0] == METRICS_NAMESPACE and PROGRAM in row}
    has = {"Calls", "Duration", "InputTokens", "OutputTokens"} & wanted
    missing: list[str] = []
    for _ in until(300):
        missing = sorted(metric for metric in has if not _exists(client, stack.name, metric))
        if not missing:
            break
    return len(has) == 4 and not missing, f"{len(series)} series; without data: {', '.join(missing) or 'none'}"


def the_saved_queries_run(stack: Stack) -> Seen:
    """Every saved Logs Insights query completes, and the one about cost finds calls."""
    logs = stack.client("logs")
    definitions = logs.describe_query_definitions(queryDefinitionNamePrefix=f"{stack.name}/")["queryDefinitions"]
    seen = {d["name"].rpartition("/")[2]: _run_query(logs, d) for d in definitions}
    fine = bool(seen) and all(status == "Complete" for status, _ in seen.values())
    costs = [rows for title, (_, rows) in seen.items() if title.startswith("tokens and cost")]
    return fine and bool(costs) and costs[0] > 0, str(seen)


def the_access_log_is_written(stack: Stack) -> Seen:
    """The API's access log contains a line for a call."""
    parameters = stack.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"][0]["Parameters"]
    mode = next((p["ParameterValue"] for p in parameters if p["ParameterKey"] == "ApiAccessLog"), "")
    if mode == "none":
        return None, "API Gateway has no log role in this account; --new-logs-role makes one for the check"
    for _ in until(180):
        events = stack.client("logs").filter_log_events(logGroupName=stack.resource("ApiLogGroup"), limit=1)["events"]
        if events:
            return True, "written"
    return False, "no line after 3 minutes"


def a_schedule_calls_its_program(stack: Stack) -> Seen:
    """A schedule of one minute calls its program with its inputs."""
    for _ in until(240, 10):
        calls = [call for call in stack.program_calls(SCHEDULED) if call.get("outcome") == "success"]
        if calls:
            return calls[0].get("source") == "direct", f"{len(calls)} calls, source {calls[0].get('source')}"
    return False, "no call after 4 minutes"


def a_rotated_key_is_read_again(stack: Stack) -> Seen:
    """After a key rotation, calls are answered again within two minutes, without a deployment."""
    stack.client("ssm").put_parameter(
        Name=key_parameter(stack.name), Type="SecureString", Overwrite=True, Value=secrets.token_urlsafe(24)
    )
    begin = time.monotonic()
    seen: list[int] = []
    for _ in until(120):
        seen.append(stack.call("why?").status)
        if seen[-1] == 200:
            break
    return seen[-1] == 200, f"{seen} within {time.monotonic() - begin:.0f} s"


def an_update_in_place_answers_throughout(stack: Stack) -> Seen:
    """A deployment that restarts all environments keeps the queue, loses no record and answers throughout."""
    if stack.deploy is None:
        return None, "nothing to deploy with"
    url, dead = stack.queue(), stack.count(stack.dead_letter_queue())
    stack.send(*(f"update {n}" for n in range(10)))
    with _Calls(stack) as calls:
        status = stack.deploy(["--secrets-version", "2"])
    outputs = stack.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"][0]["Outputs"]
    same = url in {output["OutputValue"] for output in outputs}
    left = waiting(stack, url, 180)
    failed = [str(answer) for answer in calls.answers if answer.status != 200]
    lost = stack.count(stack.dead_letter_queue()) - dead
    fine = status == 0 and same and left == 0 and lost == 0 and bool(calls.answers) and not failed
    seen = f"deploy: {status}; {len(calls.answers)} calls, not answered: {failed[:3]}; {left} waiting, {lost} dead"
    return fine, seen


class _Calls:
    """Makes one call after another for the duration of the block."""

    def __init__(self, stack: Stack) -> None:
        self.answers: list[Answer] = []
        self._stack = stack
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.answers.append(self._stack.call("why?"))
            if self._end.wait(1):
                return


def _exists(client: Any, service: str, metric: str) -> bool:
    dimensions = [{"Name": "service", "Value": service}, {"Name": "program", "Value": PROGRAM}]
    return bool(client.list_metrics(Namespace=METRICS_NAMESPACE, MetricName=metric, Dimensions=dimensions)["Metrics"])


def _run_query(logs: Any, definition: dict[str, Any]) -> tuple[str, int]:
    """Run a query; return its final status and how many rows it found."""
    now = int(time.time())
    query = logs.start_query(
        logGroupNames=definition["logGroupNames"],
        startTime=now - 3600,
        endTime=now,
        queryString=definition["queryString"],
    )["queryId"]
    result: dict[str, Any] = {}
    for _ in until(60, 2):
        result = logs.get_query_results(queryId=query)
        if result["status"] not in ("Scheduled", "Running"):
            break
    return result["status"], len(result.get("results", []))
