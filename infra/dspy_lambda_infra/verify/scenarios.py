"""The scenarios: a stack for each kind of API, auth and packaging, with its checks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_lambda_infra.verify.checks import Check, answers, operations, queues, settings
from dspy_lambda_infra.verify.project import ORDERED, PROGRAM, SCHEDULED

_FUNCTION = {"memory_mb": 512, "timeout_seconds": 20, "reserved_concurrency": 5, "retry_attempts": 0}
_SQS = {"batch_size": 10, "maximum_concurrency": 2, "max_receive_count": 5, "invalid_to_dead_letter_queue": True}
# One record at a time: those after a failing one in its batch would exhaust their receives along with it.
_FIFO = {**_SQS, "fifo": True, "batch_size": 1, "backoff_seconds": 1, "backoff_max_seconds": 2}
_QUEUE = {PROGRAM: {**_FUNCTION, "sqs": _SQS}}
_CORS = {"cors_origins": [answers.ORIGIN]}


@dataclass(frozen=True)
class Scenario:
    """One stack.

    Attributes:
        settings: builds the config's `lambda` section from the outputs of the shared stack.
        server: the config's `server` section.
        checks: the checks of the stack, in order.
        afterwards: the checks after the stack has been deleted.
        is_shared: whether it needs the shared stack.
        has_model: whether its stack has the mock model.
        obstacle: returns why this machine cannot deploy it, or None.
    """

    name: str
    settings: Callable[[Mapping[str, str]], dict[str, Any]]
    checks: tuple[Check, ...]
    server: Mapping[str, Any] | None = None
    afterwards: tuple[Check, ...] = ()
    is_shared: bool = False
    has_model: bool = True
    obstacle: Callable[[], str | None] = lambda: None

    def config(self, shared: Mapping[str, str]) -> dict[str, Any]:
        """Return the complete `lambda` section."""
        common = {"log_retention_days": 1, "programs": {PROGRAM: _FUNCTION}}
        return {**common, **self.settings(shared)}


def why_no_docker() -> str | None:
    """Return the reason why no image can be built here, or None."""
    try:
        found = subprocess.run(["docker", "info"], capture_output=True, check=False)
    except FileNotFoundError:
        return "requires Docker, which is not installed here"
    return "requires Docker, which is not running here" if found.returncode else None


_ANSWERED = (answers.a_call_is_answered, answers.the_shared_routes_answer, answers.an_unauthorized_call_is_refused)
_THROTTLED = (answers.a_throttle_is_the_gateways_own_answer, answers.a_failure_is_no_throttle)

SCENARIOS = (
    Scenario(
        "rest-iam",
        lambda _: {
            "programs": {
                **_QUEUE,
                ORDERED: {**_FUNCTION, "http": False, "sqs": _FIFO},
                SCHEDULED: {
                    **_FUNCTION,
                    "http": False,
                    "schedule": {"expression": "rate(1 minute)", "inputs": {"question": "what time is it?"}},
                },
            }
        },
        (
            *_ANSWERED,
            answers.an_unknown_path_is_404,
            answers.errors_are_readable,
            answers.a_provider_limit_reaches_the_caller,
            answers.the_deadline_is_answered,
            answers.a_blocked_loop_is_answered,
            *_THROTTLED,
            answers.a_used_up_process_is_replaced,
            queues.a_bad_record_leaves_its_batch,
            queues.a_limited_record_comes_back_after_a_backoff,
            queues.a_fifo_queue_keeps_its_order,
            queues.an_event_that_fails_for_good_is_kept,
            operations.a_schedule_calls_its_program,
            operations.the_access_log_is_written,
            operations.metrics_arrive,
            operations.the_dashboard_shows_metrics_that_exist,
            operations.the_saved_queries_run,
            operations.an_update_in_place_answers_throughout,
            operations.a_rotated_key_is_read_again,
            queues.a_record_that_ends_its_process_takes_no_other_along,
            operations.an_alarm_rises,
        ),
        afterwards=(queues.what_is_queued_outlives_the_stack,),
    ),
    Scenario(
        "rest-key",
        lambda _: {
            "api": {"auth": "api_key", "requests_per_day": 1000},
            "programs": {PROGRAM: {**_FUNCTION, "snap_start": True}},
        },
        (*_ANSWERED, answers.browsers_of_the_configured_origin_may_call, settings.snap_start_is_on),
        server=_CORS,
    ),
    Scenario(
        "rest-jwt",
        lambda shared: {"api": {"auth": "jwt", "user_pool_arn": shared["UserPoolArn"]}},
        (*_ANSWERED, answers.browsers_of_the_configured_origin_may_call),
        server=_CORS,
        is_shared=True,
    ),
    Scenario(
        "http-iam",
        lambda _: {"api": {"kind": "http"}, "architecture": "arm64"},
        (
            *_ANSWERED,
            answers.an_unknown_path_is_404,
            answers.errors_are_readable,
            answers.a_provider_limit_reaches_the_caller,
            *_THROTTLED,
            settings.the_function_is_arm64,
        ),
    ),
    Scenario(
        "http-jwt",
        lambda shared: {
            "api": {
                "kind": "http",
                "auth": "jwt",
                "issuer": shared["Issuer"],
                "audience": [shared["UserPoolClient"]],
            }
        },
        (*_ANSWERED, answers.browsers_of_the_configured_origin_may_call),
        server=_CORS,
        is_shared=True,
    ),
    Scenario(
        "url-iam",
        lambda shared: {"api": {"kind": "url"}, "kms_key_arn": shared["KeyArn"], "programs": _QUEUE},
        (
            *_ANSWERED,
            answers.errors_are_readable,
            answers.a_provider_limit_reaches_the_caller,
            *_THROTTLED,
            answers.browsers_of_the_configured_origin_may_call,
            settings.everything_is_encrypted_with_the_key,
        ),
        server=_CORS,
        is_shared=True,
    ),
    Scenario(
        "vpc",
        lambda shared: {"vpc": {"subnet_ids": [shared["Subnet"]], "security_group_ids": [shared["SecurityGroup"]]}},
        (settings.the_function_is_in_the_vpc, answers.the_shared_routes_answer),
        is_shared=True,
        has_model=False,
    ),
    Scenario(
        "image",
        lambda _: {"api": {"kind": "http"}, "package_type": "Image"},
        (*_ANSWERED, settings.the_function_is_an_image),
        obstacle=why_no_docker,
    ),
)
