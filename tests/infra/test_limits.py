import json

import pytest

from dspy_lambda_infra.cli import main
from tests.support import AECHO, ECHO


def test_limits_compares_possible_concurrent_calls_with_the_quota(make_project, capsys):
    registry = {
        "fast": {
            "model": "openai/a",
            "max_parallel_requests": 5,
            "requests_per_minute": 100,
            "quota": {"parallel_requests": 60, "requests_per_minute": 1000, "tokens_per_minute": 5},
        }
    }
    settings = {
        "defaults": {"reserved_concurrency": 10},
        "programs": {"Echo": {"sqs": {"batch_size": 8}}},
    }
    project = make_project(
        {"echo": ECHO, "aecho": AECHO}, models={"default": "fast", "registry": registry}, **{"lambda": settings}
    )
    assert main(["limits", "--project", str(project)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["fast", "AEcho", "10", "1", "10"],
        ["fast", "Echo", "10", "5", "50"],
    ]
    assert lines[3] == "fast: concurrent calls: up to 60, quota 60"
    assert lines[4] == "fast: requests a minute: up to 2000, quota 1000  WARNING: over the quota"
    assert lines[5] == "fast: tokens a minute: without a limit, quota 5  WARNING: over the quota"


@pytest.mark.parametrize(
    ("sqs", "minutes"),
    [
        ({}, 100),
        ({"max_receive_count": 5}, 1),
        ({"max_receive_count": 5, "backoff_seconds": 0}, 24),  # four times the visibility timeout, 6 x 60 s
        ({"max_receive_count": 1000}, 4 * 24 * 60),  # the queue's retention
    ],
    ids=str,
)
def test_limits_shows_how_long_an_outage_each_queue_survives(make_project, capsys, sqs, minutes):
    settings = {"programs": {"Echo": {"sqs": sqs}}}
    main(["limits", "--project", str(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))])
    lines = [line for line in capsys.readouterr().out.splitlines() if "outage" in line]
    assert lines == [f"Echo: the queue survives an outage of {minutes} minutes"]


def test_limits_without_quotas_explains_how_to_set_them(make_project, capsys):
    assert main(["limits", "--project", str(make_project({"echo": ECHO}))]) == 0
    assert "models.registry.<alias>.quota" in capsys.readouterr().out


def test_limits_json_lists_every_use_and_quota(make_project, capsys):
    registry = {"fast": {"model": "openai/a", "quota": {"parallel_requests": 60, "requests_per_minute": 9}}}
    settings = {"defaults": {"reserved_concurrency": 10}, "programs": {"Echo": {"sqs": {"batch_size": 8}}}}
    project = make_project({"echo": ECHO}, models={"default": "fast", "registry": registry}, **{"lambda": settings})
    assert main(["limits", "--project", str(project), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found.pop("survived_outage_seconds")["Echo"] // 60 == 100
    assert found == {
        "uses": [{"model": "fast", "program": "Echo", "environments": 10, "calls_each": 8, "calls_at_once": 80}],
        "quotas": [
            {"model": "fast", "what": "concurrent calls", "reached": 80, "quota": 60, "exceeded": True},
            {"model": "fast", "what": "requests a minute", "reached": None, "quota": 9, "exceeded": True},
        ],
        "in_code": [],
        "failed": {},
    }


def test_limits_names_the_lms_in_code_to_which_no_quota_applies(make_project, capsys):
    source = 'JUDGE = dspy.LM("openai/a", max_parallel_requests=2000)\nOTHER = dspy.LM("openai/b")\n' + ECHO
    project = make_project({"echo": source})
    assert main(["limits", "--project", str(project)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " in code " in line]
    assert lines == [
        "Echo: echo.JUDGE: openai/a in code is not counted above; in one process, up to 2000 parallel requests",
        "Echo: echo.OTHER: openai/b in code is not counted above; in one process, it has no limit",
    ]
    main(["limits", "--project", str(project), "--json"])
    assert [use["names"] for use in json.loads(capsys.readouterr().out)["in_code"]] == [["echo.JUDGE"], ["echo.OTHER"]]
