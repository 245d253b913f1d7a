import json
import os
import shlex
import signal
import urllib.error
import urllib.request

import pytest

from dspy_lambda_infra import observed
from dspy_lambda_infra.cli import main
from dspy_lambda_infra.local.command import send_command, visibility_warnings
from dspy_lambda_infra.project import load_project
from tests.conftest import EVENTS, QUICKSTART
from tests.infra.local.support import http_request, processes
from tests.support import AECHO, ECHO, wait_until


@pytest.mark.parametrize(("seconds", "warned"), [(None, False), (1, True), (29, True), (30, False), (300, False)])
def test_a_visibility_timeout_below_the_functions_timeout_causes_one_warning(make_project, seconds, warned):
    settings = {"programs": {"Echo": {"sqs": {}, "timeout_seconds": 30}, "AEcho": {"timeout_seconds": 900}}}
    project = load_project(make_project({"echo": ECHO, "aecho": AECHO}, **{"lambda": settings}))
    lines = visibility_warnings(project, seconds)
    assert len(lines) == warned
    for line in lines:
        assert line.startswith(f"--visibility-timeout {seconds} is below the timeout of Echo (30 s): ")
        assert "backoff_seconds: 1" in line


@pytest.mark.parametrize(("sqs", "group"), [({}, []), ({"fifo": True}, ["--message-group-id", "1"])])
def test_the_printed_send_command_has_everything_the_aws_cli_needs(make_project, sqs, group):
    project = load_project(make_project({"echo": ECHO}, **{"lambda": {"defaults": {"sqs": sqs}}}))
    words = shlex.split(send_command(project.functions["Echo"], "http://127.0.0.1:9", "http://127.0.0.1:9/1/EchoQueue"))
    assert words[:5] == ["AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "aws", "sqs", "send-message"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options.pop("--endpoint-url") == "http://127.0.0.1:9"
    assert options.pop("--queue-url") == "http://127.0.0.1:9/1/EchoQueue"
    assert options.pop("--region") == "us-east-1"
    assert json.loads(options.pop("--message-body")) == {"question": "..."}
    assert [word for option in options.items() for word in option] == group


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_local_serves_until_a_signal_and_leaves_no_process(command, number, status):
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        body = json.dumps({"question": "q"}).encode()
        with urllib.request.urlopen(http_request(f"{url}/Answer", body), timeout=60) as answer:
            assert json.load(answer) == {"answer": "A sample answer."}
        assert processes()
        process.send_signal(number)
        assert process.wait(timeout=60) == status
        out, err = process.stdout.read(), process.stderr.read()
    assert "queue http://" in out
    assert "Traceback" not in err


def test_local_shows_recent_lines_until_it_ends(command, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0", "--json") as process:
        document = json.loads(process.stdout.readline())
        address = observed.find(QUICKSTART)
        assert address == document["observer"]
        with observed.get(f"{address}/lines?follow=true", 60) as lines:
            body = json.dumps({"question": "q"}).encode()
            urllib.request.urlopen(http_request(document["programs"]["Answer"], body), timeout=60).close()
            followed = []
            while not any(line.get("type") == "platform.report" for line in followed):
                followed.append(json.loads(lines.readline()))
        assert [line["outcome"] for line in followed if line.get("message") == "program call"] == ["success"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert observed.find(QUICKSTART) is None
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_local_serves_if_its_address_cannot_be_published(command, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0") as process:
        assert process.stdout.readline().startswith("ready http://")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "`dspy-lambda logs` and `dspy-lambda trace` will not find this server: " in err


def test_functions_die_when_the_local_command_is_killed(command):
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        urllib.request.urlopen(http_request(f"{url}/Answer", b'{"question": "q"}'), timeout=60).close()
        assert processes()
        process.kill()
        wait_until(lambda: not processes())


def test_a_port_in_use_exits_with_1_and_suggests_a_fix(command):
    with command("local", "--project", str(QUICKSTART), "--port", "0", "--model-server") as first:
        port = first.stdout.readline().split()[1].rpartition(":")[2]
        with command("local", "--project", str(QUICKSTART), "--port", port, "--model-server") as second:
            _, err = second.communicate(timeout=60)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert second.returncode == 1
    assert "--port 0 picks a free one" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--event", str(EVENTS / "direct.json")], 0, '"queue": "billing"'),
        (["Answer", "--event", str(EVENTS / "rest.json")], 0, '"statusCode": 200'),
        (["Answer", "--event", str(EVENTS / "sqs-one-bad.json")], 1, '"batchItemFailures": [{'),
        (["Answer", "--event", str(EVENTS / "direct.json")], 1, '"errorType": "InvalidInput"'),
    ],
)
def test_invoke_prints_the_answer_and_reports_errors_in_its_exit_status(capfd, arguments, status, says):
    assert main(["invoke", *arguments, "--project", str(QUICKSTART), "--model-server"]) == status
    out, err = capfd.readouterr()
    assert says in out
    assert len(out.splitlines()) == 1
    assert all(json.loads(line) for line in err.splitlines())


def test_invoke_accepts_inputs_as_text_or_file(capfd, tmp_path):
    file = tmp_path / "inputs.json"
    file.write_text('{"question": "q"}')
    for inputs in ('{"question": "q"}', str(file)):
        assert main(["invoke", "Answer", "--inputs", inputs, "--project", str(QUICKSTART), "--model-server"]) == 0
        answer = {"program": "Answer", "outputs": {"answer": "A sample answer."}}
        assert json.loads(capfd.readouterr().out) == answer


def test_bare_inputs_passed_as_event_are_refused_with_the_right_option(capfd, tmp_path):
    file = tmp_path / "inputs.json"
    file.write_text('{"question": "q"}')
    assert main(["invoke", "Answer", "--event", str(file), "--project", str(QUICKSTART), "--model-server"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["errorType"] == "UnknownEvent"
    assert "pass a program's inputs with --inputs" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["invoke", "Answer", "--inputs", "{question", "--project", str(QUICKSTART)], "--inputs: invalid JSON"),
        (["invoke", "Answer", "--inputs", "/nowhere", "--project", str(QUICKSTART)], "/nowhere: No such file"),
        (["invoke", "Answer", "--inputs", "[1]", "--project", str(QUICKSTART)], "--inputs: must be a JSON object"),
        (["invoke", "Answer", "--inputs", '"q"', "--project", str(QUICKSTART)], "--inputs: must be a JSON object"),
        (
            ["invoke", "--inputs", "{}", "--project", str(QUICKSTART)],
            "--inputs requires a program: Answer, Perspectives",
        ),
        (["invoke", "Nope", "--event", str(EVENTS / "rest.json"), "--project", str(QUICKSTART)], "no program 'Nope'"),
        (["invoke", "--event", "/nowhere.json", "--project", str(QUICKSTART)], "/nowhere.json: No such file"),
        (["invoke", "--event", str(EVENTS / "README.md"), "--project", str(QUICKSTART)], "invalid JSON"),
        (["local", "--project", "/nowhere"], "/nowhere/dspy.config.yaml: no such file"),
    ],
)
def test_wrong_local_and_invoke_arguments_exit_with_2(capsys, arguments, says):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


SAYS = """
import os
print('hello')
WORD = os.environ['MY_WORD']
class Says(dspy.Module):
    async def aforward(self) -> str:
        return WORD
"""


def test_env_file_values_reach_imports_and_functions_and_prints_go_to_stderr(make_project, capfd):
    source = SAYS
    project = make_project({"says": source})
    (project / ".env").write_text("MY_WORD=from-file\n")
    event = project / "event.json"
    event.write_text('{"inputs": {}}')
    assert main(["invoke", "--event", str(event), "--project", str(project), "--model-server"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"program": "Says", "outputs": {"result": "from-file"}}
    assert "hello" in err
    assert "MY_WORD" not in os.environ
