"""Reads log events of a deployed stack from CloudWatch Logs. Changes nothing.

With FilterLogEvents, for `--tail` too: it costs nothing, and a role that may read logs may call it. StartLiveTail
requires another permission, is billed by the minute, ends after three hours and leaves out lines above 500 a second.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatchLogs_LiveTail.html
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.deploy.account import open_session
from dspy_lambda_infra.unavailable import Unavailable

PERMISSIONS = "cloudformation:ListStackResources and logs:FilterLogEvents"
_POLL_SECONDS = 2.0
# Events may become readable seconds after later ones.
_OVERLAP_SECONDS = 30.0
_MOST_KNOWN = 100_000
Event = dict[str, Any]


class CloudWatchUnavailable(Unavailable):
    """The logs cannot be read; the text says why and what to do."""


class CloudWatch:
    """An account's logs in a Region.

    Raises:
        CloudWatchUnavailable: no Region or credentials.
    """

    def __init__(self, region: str | None) -> None:
        try:
            self._session: boto3.Session = open_session(region)
            if self._session.region_name is None:
                raise CloudWatchUnavailable("no Region; use --region, or set AWS_REGION")
            if self._session.get_credentials() is None:
                raise CloudWatchUnavailable("no AWS credentials; sign in, or set AWS_PROFILE")
            self._logs = self._session.client("logs")
        except BotoCoreError as error:
            raise CloudWatchUnavailable(str(error)) from None

    def functions(self, stack: str) -> dict[str, str]:
        """Return the log group of each of a stack's program functions, by the function's name.

        Raises:
            CloudWatchUnavailable: there is no such stack, or no permission.
        """
        resources = dict(self._resources(stack))
        found = {}
        for logical_id, (kind, name) in resources.items():
            if kind == "AWS::Lambda::Function" and logical_id != "CatalogueFunction":
                _, group = resources.get(f"{logical_id.removesuffix('Function')}LogGroup", ("", ""))
                found[name] = group or f"/aws/lambda/{name}"
        if not found:
            raise CloudWatchUnavailable(f"the stack {stack} has no functions")
        return found

    def _resources(self, stack: str) -> Iterator[tuple[str, tuple[str, str]]]:
        client = self._session.client("cloudformation")
        with _explained(f"the stack {stack}"):
            for page in client.get_paginator("list_stack_resources").paginate(StackName=stack):
                for resource in page["StackResourceSummaries"]:
                    # It has no name while it is being created.
                    name = resource.get("PhysicalResourceId", "")
                    yield resource["LogicalResourceId"], (resource["ResourceType"], name)

    def events(
        self, groups: list[str], pattern: str | None, since: float, until: float | None = None
    ) -> Iterator[Event]:
        """Yield the events of log groups in the order of their time; each has `eventId`, `timestamp` and `message`.

        Args:
            pattern: CloudWatch's filter pattern; None for all events.
            since, until: seconds since the epoch.

        Raises:
            CloudWatchUnavailable: no log group, or no permission.
        """
        streams = [self._group_events(group, pattern, since, until) for group in groups]
        return heapq.merge(*streams, key=lambda event: event["timestamp"])

    def _group_events(self, group: str, pattern: str | None, since: float, until: float | None) -> Iterator[Event]:
        wanted: Any = {"logGroupName": group, "startTime": int(since * 1000)}
        wanted |= {"filterPattern": pattern} if pattern else {}
        wanted |= {"endTime": int(until * 1000)} if until is not None else {}
        with _explained(f"the log group {group}"):
            for page in self._logs.get_paginator("filter_log_events").paginate(**wanted):
                yield from page["events"]

    def follow(
        self, groups: list[str], pattern: str | None, since: float, pause: Callable[[float], None] = time.sleep
    ) -> Iterator[Event]:
        """Yield the events since then and each new one, once, without end. Asks for new ones every 2 seconds."""
        known: dict[str, None] = {}
        while True:
            newest = since
            for event in self.events(groups, pattern, since):
                if event["eventId"] not in known:
                    known[event["eventId"]] = None
                    yield event
                newest = max(newest, event["timestamp"] / 1000)
            since = max(since, newest - _OVERLAP_SECONDS)
            while len(known) > _MOST_KNOWN:
                del known[next(iter(known))]
            pause(_POLL_SECONDS)


class _explained:
    """Turns errors of AWS into `CloudWatchUnavailable`.

    Args:
        what: what is being read.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ClientError):
            # The service's message may quote the signed request.
            code = error.response["Error"]["Code"]
            hint = {
                "ValidationError": "no such stack in this account and Region; see --stack and --region",
                "ResourceNotFoundException": "no such log group in this account and Region",
                "AccessDeniedException": f"{code}; this requires {PERMISSIONS}",
                "AccessDenied": f"{code}; this requires {PERMISSIONS}",
            }.get(code, code)
            raise CloudWatchUnavailable(f"{self._what}: {hint}") from None
        if isinstance(error, BotoCoreError):
            raise CloudWatchUnavailable(f"{self._what}: {error}") from None
