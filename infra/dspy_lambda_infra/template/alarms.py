"""Alarms and their topic."""

from __future__ import annotations

from typing import Any

from dspy_lambda.config.schema import SLOW_SHARE
from dspy_lambda.settings import METRICS_NAMESPACE
from dspy_lambda_infra.models import unpriced
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.queues import visibility_timeout_seconds
from dspy_lambda_infra.template.syntax import get_att, if_, ref, sub

_MINUTE, _FIVE_MINUTES, _DAY = 60, 300, 86_400
_MOST_OF_THE_CONCURRENCY = 0.8
_ERROR_PERCENT = 1
# At 9 input tokens per output token, the median of the prices of Bedrock's chat models in DSPy 3.4.1's price map is
# 1.10 USD per million tokens.
_TOKENS_PER_USD = 1_000_000


def alarm_topic(project: Project) -> dict[str, Any]:
    """Return the topic that all alarms notify, and the alarm on the queue that all programs share."""
    key = project.config.lambda_.kms_key_arn
    subscription = if_("HasAlarmEmail", [{"Endpoint": ref("AlarmEmail"), "Protocol": "email"}])
    topic = {"Subscription": subscription, **({"KmsMasterKeyId": key} if key else {})}
    return {
        "AlarmTopic": {"Type": "AWS::SNS::Topic", "Properties": topic},
        "OnFailureAlarm": _alarm(
            "An asynchronous invocation or a schedule failed permanently; its event is in the on-failure queue",
            _queue_metric("OnFailureQueue", "ApproximateNumberOfMessagesVisible"),
            threshold=0,
        ),
    }


def daily_tokens(project: Project, function: Function) -> int | None:
    """Return the threshold of the token alarm: a day's input and output tokens; None without such an alarm.

    Unless `daily_tokens` is set, the alarm stands in for the spend alarm of a function with a model of unknown price,
    with a million tokens for each USD of `daily_cost_usd`.
    """
    settings = function.settings
    if settings.daily_tokens or not settings.daily_cost_usd or not unpriced(project, function):
        return settings.daily_tokens
    return max(1, round(settings.daily_cost_usd * _TOKENS_PER_USD))


def alarm_resources(project: Project, function: Function) -> dict[str, Any]:
    """Return one program's alarms."""
    name, settings = logical_name(function.name), function.settings
    reserved = settings.reserved_concurrency
    alarms = {
        "Errors": _ratio_alarm(
            f"More than {_ERROR_PERCENT} % of the invocations of {function.name} failed",
            _lambda_metric(name, "Errors"),
            _lambda_metric(name, "Invocations"),
        ),
        "Failures": _ratio_alarm(
            f"More than {_ERROR_PERCENT} % of the calls of {function.name} failed: model, deadline or program",
            _own_metric(function, "Errors"),
            _own_metric(function, "Calls"),
        ),
        "Throttles": _alarm(
            f"{function.name} was throttled: reserved or account concurrency is used up",
            _lambda_metric(name, "Throttles"),
            threshold=0,
        ),
        "Duration": _alarm(
            f"The slowest 1 % of invocations of {function.name} are near its timeout of {settings.timeout_seconds} s",
            _lambda_metric(name, "Duration", "p99"),
            threshold=SLOW_SHARE * settings.timeout_seconds * 1000,
        ),
    }
    if reserved:
        alarms["Concurrency"] = _alarm(
            f"{function.name} uses most of its reserved concurrency of {reserved}",
            _lambda_metric(name, "ConcurrentExecutions", "Maximum"),
            threshold=_MOST_OF_THE_CONCURRENCY * reserved,
        )
    if settings.sqs:
        visibility = visibility_timeout_seconds(settings)
        alarms["DeadLetter"] = _alarm(
            f"Records of {function.name} are in its dead-letter queue",
            _queue_metric(f"{name}DeadLetterQueue", "ApproximateNumberOfMessagesVisible"),
            threshold=0,
        )
        alarms["Age"] = _alarm(
            f"A record of {function.name} has waited longer than the visibility timeout of {visibility} s",
            _queue_metric(f"{name}Queue", "ApproximateAgeOfOldestMessage"),
            threshold=visibility,
        )
    if settings.daily_cost_usd:
        alarms["Spend"] = _alarm(
            f"The model calls of {function.name} cost more than {settings.daily_cost_usd:g} USD in a day",
            _own_metric(function, "CostUSD", period=_DAY),
            threshold=settings.daily_cost_usd,
        )
    if most := daily_tokens(project, function):
        alarms["Tokens"] = _tokens_alarm(function, most)
    return {f"{name}{kind}Alarm": alarm for kind, alarm in alarms.items()}


def rollout_alarms(function: Function, alias: str) -> dict[str, Any]:
    """Return the alarms that roll traffic back to the old version during a deployment.

    Their periods are 60 s, because a canary may last only 5 minutes; they need two in a row, because one failed call
    among few says little about the version. CodeDeploy reads their state, so they notify nobody.
    """
    name = logical_name(function.name)
    own = {"FunctionName": ref(f"{name}Function"), "Resource": sub(f"${{{name}Function}}:{alias}")}
    errors, invocations = (_metric("AWS/Lambda", metric, own, "Sum", _MINUTE) for metric in ("Errors", "Invocations"))
    failures, calls = (_own_metric(function, metric, _MINUTE) for metric in ("Errors", "Calls"))
    alarms = {
        "Errors": _ratio_alarm(f"Deploying {function.name}: invocations fail", errors, invocations),
        "Failures": _ratio_alarm(f"Deploying {function.name}: calls fail", failures, calls),
    }
    for alarm in alarms.values():
        alarm["Properties"] |= {"AlarmActions": [], "OKActions": [], "EvaluationPeriods": 2}
    return {f"{name}Rollout{kind}Alarm": alarm for kind, alarm in alarms.items()}


def _alarm(description: str, metric: dict[str, Any], *, threshold: float) -> dict[str, Any]:
    statistic = metric.pop("Stat")
    extended = "ExtendedStatistic" if statistic.startswith("p") else "Statistic"
    return _resource(description, threshold, {**metric, extended: statistic})


def _ratio_alarm(description: str, part: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Return an alarm in percent. Without calls, there is no alarm."""
    queries = [
        {"Id": "percent", "Expression": "IF(whole > 0, 100 * part / whole, 0)", "Label": "percent"},
        {"Id": "part", "ReturnData": False, "MetricStat": _metric_stat(part)},
        {"Id": "whole", "ReturnData": False, "MetricStat": _metric_stat(whole)},
    ]
    return _resource(description, _ERROR_PERCENT, {"Metrics": queries})


def _tokens_alarm(function: Function, most: int) -> dict[str, Any]:
    queries = [
        {"Id": "tokens", "Expression": "input + output", "Label": "tokens"},
        *(
            {"Id": name, "ReturnData": False, "MetricStat": _metric_stat(_own_metric(function, metric, _DAY))}
            for name, metric in (("input", "InputTokens"), ("output", "OutputTokens"))
        ),
    ]
    description = f"The model calls of {function.name} used more than {most:,} tokens in a day"
    return _resource(description, most, {"Metrics": queries})


def _metric_stat(metric: dict[str, Any]) -> dict[str, Any]:
    named = {key: metric[key] for key in ("Namespace", "MetricName", "Dimensions")}
    return {"Metric": named, "Period": metric["Period"], "Stat": metric["Stat"]}


def _resource(description: str, threshold: float, what: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "AlarmDescription": description,
        "AlarmActions": [ref("AlarmTopic")],
        "OKActions": [ref("AlarmTopic")],
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "TreatMissingData": "notBreaching",
        **what,
    }
    return {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}


def _lambda_metric(name: str, metric: str, statistic: str = "Sum") -> dict[str, Any]:
    return _metric("AWS/Lambda", metric, {"FunctionName": ref(f"{name}Function")}, statistic)


def _queue_metric(queue: str, metric: str) -> dict[str, Any]:
    return _metric("AWS/SQS", metric, {"QueueName": get_att(f"{queue}.QueueName")}, "Maximum")


def _own_metric(function: Function, metric: str, period: int = _FIVE_MINUTES) -> dict[str, Any]:
    dimensions = {"service": sub("${AWS::StackName}"), "program": function.name}
    return _metric(METRICS_NAMESPACE, metric, dimensions, "Sum", period)


def _metric(
    namespace: str, name: str, dimensions: dict[str, Any], statistic: str, period: int = _FIVE_MINUTES
) -> dict[str, Any]:
    return {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        "Period": period,
        "Stat": statistic,
    }
