import pytest

from dspy_lambda_infra.template.syntax import ref


def test_alarms_cover_failures_and_saturation_and_can_be_disabled(make):
    settings = {"defaults": {"sqs": {}, "timeout_seconds": 100, "daily_cost_usd": 2.5}}
    found = make(settings)
    alarms = {n.removeprefix("Echo").removesuffix("Alarm"): r["Properties"] for n, r in found.items() if "Alarm" in n}
    alarms.pop("AlarmTopic", None)
    assert {name: alarm["Threshold"] for name, alarm in alarms.items() if "Threshold" in alarm} == {
        "Errors": 1,
        "Failures": 1,
        "Throttles": 0,
        "Duration": 80_000.0,
        "Concurrency": 8.0,
        "DeadLetter": 0,
        "Age": 600,
        "Spend": 2.5,
        "OnFailure": 0,
    }
    assert all(a["AlarmActions"] == [ref("AlarmTopic")] for a in alarms.values() if "Threshold" in a)
    assert not any("Alarm" in name for name in make({**settings, "alarms": False}))


def test_daily_tokens_creates_a_token_alarm(make):
    alarm = make({"defaults": {"daily_tokens": 5000}})["EchoTokensAlarm"]["Properties"]
    assert alarm["Threshold"] == 5000
    read = {q["MetricStat"]["Metric"]["MetricName"]: q["MetricStat"] for q in alarm["Metrics"] if "MetricStat" in q}
    assert set(read) == {"InputTokens", "OutputTokens"}
    assert {stat["Period"] for stat in read.values()} == {86_400}
    assert "EchoTokensAlarm" not in make()


@pytest.mark.parametrize(
    ("defaults", "price", "tokens"),
    [
        ({}, None, 10_000_000),
        ({"daily_cost_usd": 0.5}, None, 500_000),
        ({"daily_tokens": 7}, None, 7),
        ({"daily_cost_usd": None}, None, None),
        ({}, {"input_per_million": 1, "output_per_million": 2}, None),
    ],
)
def test_a_token_alarm_stands_in_for_the_spend_alarm_if_a_price_is_unknown(make, defaults, price, tokens):
    registry = {
        "own": {"model": "openai/gpt-4.1-nano", "fallback": ["spare"]},
        "spare": {"model": "bedrock/acme.model"},
    }
    registry["spare"]["price"] = price
    found = make({"defaults": defaults}, models={"default": "own", "registry": registry})
    alarm = found.get("EchoTokensAlarm")
    assert (alarm and alarm["Properties"]["Threshold"]) == tokens
