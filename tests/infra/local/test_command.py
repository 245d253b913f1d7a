import json
import shlex

import pytest

from dspy_lambda_infra.local.command import send_command, visibility_warnings
from dspy_lambda_infra.project import load_project
from tests.support import AECHO, ECHO


@pytest.mark.parametrize(("seconds", "warned"), [(None, False), (1, True), (29, True), (30, False), (300, False)])
def test_a_visibility_timeout_below_the_functions_own_is_warned_of_in_one_line(make_project, seconds, warned):
    settings = {"programs": {"Echo": {"sqs": {}, "timeout_seconds": 30}, "AEcho": {"timeout_seconds": 900}}}
    project = load_project(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))
    lines = visibility_warnings(project, seconds)
    assert len(lines) == warned
    for line in lines:
        assert line.startswith(f"--visibility-timeout {seconds} is below the timeout of Echo (30 s): ")
        assert "backoff_seconds: 1" in line


@pytest.mark.parametrize(("sqs", "group"), [({}, []), ({"fifo": True}, ["--message-group-id", "1"])])
def test_the_command_that_sends_to_a_queue_names_all_that_the_cli_needs(make_project, sqs, group):
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"sqs": sqs}}}))
    words = shlex.split(send_command(project.functions["Echo"], "http://127.0.0.1:9", "http://127.0.0.1:9/1/EchoQueue"))
    assert words[:5] == ["AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "aws", "sqs", "send-message"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options.pop("--endpoint-url") == "http://127.0.0.1:9"
    assert options.pop("--queue-url") == "http://127.0.0.1:9/1/EchoQueue"
    assert options.pop("--region") == "us-east-1"
    assert json.loads(options.pop("--message-body")) == {"question": "..."}
    assert [word for option in options.items() for word in option] == group
