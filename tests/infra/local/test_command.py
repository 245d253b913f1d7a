import pytest

from dspy_lambda_infra.local.command import visibility_warnings
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
