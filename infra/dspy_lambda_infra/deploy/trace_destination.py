"""Asks X-Ray whether CloudWatch takes the account's spans: its OTLP endpoint needs Transaction Search. Changes nothing.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Enable-TransactionSearch.html
"""

from __future__ import annotations

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.deploy.account import open_session
from dspy_lambda_infra.project import Project

SWITCH = "see CloudWatch in docs/observe.md; the switch is the account's, and is never set silently"
# An unreachable endpoint delays the page by no more than this.
_CLIENT = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})


def uses_cloudwatch(project: Project) -> bool:
    """Whether any program's traces go to CloudWatch."""
    return any(function.settings.telemetry.traces == "cloudwatch" for function in project.functions.values())


def fetch_trace_destination(region: str | None, unavailable: str = "") -> str:
    """Return one line about the account's switch. Never fails.

    Args:
        region: the functions' Region, if it is known.
        unavailable: why the account cannot be asked; empty if it can.
    """
    if unavailable:
        return f"cloudwatch; Transaction Search NOT checked: {unavailable}"
    try:
        found = open_session(region).client("xray", config=_CLIENT).get_trace_segment_destination()
    except ClientError as error:
        # The service's message may quote the signed request.
        code = error.response["Error"]["Code"]
        return f"cloudwatch; Transaction Search NOT checked: GetTraceSegmentDestination: {code}"
    except BotoCoreError as error:
        return f"cloudwatch; Transaction Search NOT checked: {error}"
    if found.get("Destination") != "CloudWatchLogs":
        return f"cloudwatch, which REFUSES SPANS: Transaction Search is off in this account and Region: {SWITCH}"
    if found.get("Status") != "ACTIVE":
        return "cloudwatch; Transaction Search is being switched on, and takes some minutes"
    return "cloudwatch; Transaction Search is on"
