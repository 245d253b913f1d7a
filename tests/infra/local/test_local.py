"""The local Lambda on the real runtime client: each test starts real processes."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from dspy_lambda_infra.cli import main
from dspy_lambda_infra.local.environment import MAX_REQUEST_BYTES
from dspy_lambda_infra.local.events import EVENTS as EVENTS_OF
from dspy_lambda_infra.local.events import Request, rest_event
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.function import RequestTooLarge, Throttled
from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.conftest import EVENTS, QUICKSTART
from tests.infra.local.support import RUN, direct, post, processes
from tests.support import AECHO, ECHO

SLEEPER = """
import asyncio, os, re, uuid
ENVIRONMENT = str(uuid.uuid4())
class Sleeper(dspy.Module):
    async def aforward(self, seconds: float = 0, hold: bool = False, size: int = 0, exit: bool = False) -> str:
        if exit: os._exit(3)
        if hold: re.match("(a+)+$", "a" * 64 + "b")  # keeps the interpreter's lock for ages
        await asyncio.sleep(seconds)
        return ENVIRONMENT + "x" * size
"""


def test_the_sample_events_get_the_same_answers_as_from_the_handler(make_local, serve, event):
    async def run():
        async with make_local(QUICKSTART) as local:
            function = local.function(CATALOGUE)
            names = sorted(path.stem for path in EVENTS.glob("*.json"))
            return {
                name: json.loads((await function.invoke(json.dumps(event(name)).encode())).payload) for name in names
            }

    answers = asyncio.run(run())
    assert len(answers) == 9
    assert answers == {name: serve(event(name)) for name in answers}


RAISES = """
class Raises(dspy.Module):
    def forward(self):
        print("about to raise")
        raise ValueError("the reason")
"""


@pytest.mark.parametrize(("variables", "shown"), [({}, True), ({"DSPY_LAMBDA_EXCEPTION_TEXTS": "none"}, False)])
def test_developers_are_shown_the_texts_of_exceptions_unless_they_say_no(
    make_project, make_local, lines, monkeypatch, variables, shown
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def run():
        async with make_local(make_project({"raises": RAISES})) as local:
            return await local.function("Raises").invoke(direct())

    answer = asyncio.run(run())
    assert ("ValueError: the reason" in answer.message) is shown
    records = lines.records
    assert records.calls[0].get("exception") == ("the reason" if shown else None)
    (printed,) = [line for line in records.lines if line.get("message") == "about to raise"]
    assert printed["function_request_id"] == records.calls[0]["function_request_id"]


def test_the_front_adds_what_a_gateway_adds(make_project, make_local, monkeypatch):
    project = make_project({"aecho": AECHO})
    seen = []
    monkeypatch.setitem(EVENTS_OF, "rest", lambda request: seen.append(request) or rest_event(request))

    async def run():
        async with make_local(project) as local, local.front("rest", 0) as address:
            await asyncio.to_thread(status_of, http_request(f"{address}/AEcho", b"{}"))

    asyncio.run(run())
    headers = dict(seen[0].headers)
    assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert headers["X-Amzn-Trace-Id"].startswith("Root=1-")


def test_a_program_without_http_has_no_route(make_project, make_local):
    project = make_project({"aecho": AECHO}, **{"lambda": {"programs": {"AEcho": {"http": False}}}})

    async def run():
        async with make_local(project) as local, local.front("rest", 0) as address:
            return await asyncio.to_thread(status_of, http_request(f"{address}/AEcho", b"{}"))

    assert asyncio.run(run()) == 404


def test_a_timeout_kills_the_process_and_the_next_event_starts_another(make_project, make_local, lines):
    settings = {"defaults": {"timeout_seconds": 1}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            first = await function.invoke(direct())
            again = await function.invoke(direct())
            killed = await function.invoke(direct(hold=True))
            cut_off = await function.invoke(direct(seconds=5))
            after = await function.invoke(direct())
            return [json.loads(answer.payload) for answer in (first, again, killed, cut_off, after)]

    first, again, killed, cut_off, after = asyncio.run(run())
    assert first == again != after
    assert killed["errorType"] == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in killed["errorMessage"]
    # Any other call is answered before the kill.
    assert cut_off["errorType"] == "DeadlineExceeded"
    assert ["initDurationMs" in report["metrics"] for report in lines.reports] == [True, False, False, True, False]


def test_reserved_concurrency_throttles_as_the_gateway_would_show_it(make_project, make_local):
    settings = {"defaults": {"reserved_concurrency": 2}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run(kind):
        async with make_local(project) as local:
            front = Front(kind, {"Sleeper": local.function("Sleeper")}, local.function(CATALOGUE))
            return await asyncio.gather(*(front.answer(post("Sleeper", seconds=0.5)) for _ in range(3)))

    for kind, status in (("rest", 503), ("http", 503), ("url", 429)):
        answers = asyncio.run(run(kind))
        assert sorted(answer.status for answer in answers) == [200, 200, status]
        (throttled,) = [answer for answer in answers if answer.status != 200]
        assert ("Retry-After" in dict(throttled.headers)) == (kind != "http")


def test_none_reserved_is_a_switch_that_is_off(make_project, make_local):
    project = make_project({"sleeper": SLEEPER}, **{"lambda": {"defaults": {"reserved_concurrency": 0}}})

    async def run():
        async with make_local(project) as local:
            with pytest.raises(Throttled):
                await local.function("Sleeper").invoke(direct())

    asyncio.run(run())


def test_six_megabytes_bound_event_and_answer(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            with pytest.raises(RequestTooLarge):
                await function.invoke(b" " * (MAX_REQUEST_BYTES + 1))
            large = await function.invoke(direct(size=6_200_000))
            front = Front("rest", {"Sleeper": function}, function)
            over = await front.answer(Request("POST", "/Sleeper", body=b'"' + b"a" * 6_100_000 + b'"'))
            return large, over

    large, over = asyncio.run(run())
    assert large.error is None
    assert (over.status, dict(over.headers)["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    ("module", "kind", "says"),
    [
        ("import nothing_of_that_name\n" + AECHO, "ConfigError", "No module named 'nothing_of_that_name'"),
        ("import os\n" + AECHO, None, ""),
    ],
)
def test_a_failed_init_is_a_function_error_with_the_reason(make_project, make_local, module, kind, says):
    project = make_project({"echo": ECHO, "other": module})

    async def run():
        async with make_local(project) as local:
            front = Front("rest", {"AEcho": local.function("AEcho")}, local.function(CATALOGUE))
            return await local.function("AEcho").invoke(direct(question="q")), await front.answer(
                post("AEcho", question="q")
            )

    answer, http = asyncio.run(run())
    assert answer.error == kind
    assert says in answer.payload.decode()
    assert http.status == (502 if kind else 200)


def test_a_process_that_exits_is_a_function_error_and_is_replaced(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            return await function.invoke(direct(exit=True)), await function.invoke(direct())

    exited, after = asyncio.run(run())
    assert exited.error == "Runtime.ExitError"
    assert after.error is None


WRITER = """
import pathlib, socket, tempfile
class Writer(dspy.Module):
    async def aforward(self, folder: str) -> str:
        try:
            (pathlib.Path(folder) / "written-by-a-function").write_text("x")
            return "written"
        except OSError as error:
            return type(error).__name__ + " " + str(error.errno)
"""


def test_task_root_and_home_are_read_only_and_tmp_is_not(make_project, make_local, tmp_path):
    project = make_project({"writer": WRITER})
    outside = tmp_path / "elsewhere"
    outside.mkdir()

    async def run():
        async with make_local(project) as local:
            if local.writable:
                pytest.skip(f"no read-only task root on this machine: {local.writable}")
            function = local.function("Writer")
            places = (project, project / "src", Path.home(), Path(sys.prefix), outside)
            return [json.loads((await function.invoke(direct(folder=str(place)))).payload) for place in places]

    *inside, elsewhere = [answer["outputs"]["result"] for answer in asyncio.run(run())]
    assert inside == ["OSError 30"] * 4
    assert elsewhere == "written"
    assert not (project / "written-by-a-function").exists()


def test_the_sdk_can_renew_the_developers_tokens_in_the_read_only_home(make_project, make_local, tmp_path, monkeypatch):
    project = make_project({"writer": WRITER})
    home = project / "home"
    caches = [home / ".aws" / "sso" / "cache", home / ".aws" / "login" / "cache"]
    for cache in caches:
        cache.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    async def run():
        async with make_local(project) as local:
            if local.writable:
                pytest.skip(f"no read-only task root on this machine: {local.writable}")
            function = local.function("Writer")
            places = (home, home / ".aws", *caches)
            return [json.loads((await function.invoke(direct(folder=str(place)))).payload) for place in places]

    assert [answer["outputs"]["result"] for answer in asyncio.run(run())] == ["OSError 30"] * 2 + ["written"] * 2


KEYS = """
import boto3

SESSION = boto3.Session()

class Keys(dspy.Module):
    async def aforward(self) -> list[str]:
        return [SESSION.get_credentials().access_key for _ in range(2)]
"""
# As an assumed role's, its keys expire; the SDK renews them 15 minutes before, at each look if they last for less.
EXPIRING = """
import datetime, json, pathlib
count = pathlib.Path(__file__).with_suffix(".count")
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
keys = {"AccessKeyId": f"key-{n}", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": expires.isoformat()}
print(json.dumps({"Version": 1, **keys}))
"""


@pytest.mark.parametrize("name", ["AWS_PROFILE", "default", None])
def test_programs_call_aws_with_the_developers_profile_which_is_renewed(
    make_project, make_local, lines, tmp_path, monkeypatch, name
):
    """And with keys that nobody checks where there is no profile, so that the queues here can be called."""
    for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    (tmp_path / "expiring.py").write_text(EXPIRING)
    profile = {"AWS_PROFILE": "profile dev", "default": "default", None: "profile other"}[name]
    (tmp_path / "config").write_text(f"[{profile}]\ncredential_process = {sys.executable} {tmp_path / 'expiring.py'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if name == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "dev")
    settings = {"defaults": {"sqs": {"max_receive_count": 2, "backoff_seconds": 1}}}
    project = make_project({"keys": KEYS, "aecho": AECHO}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=300) as server:
            answer = json.loads((await local.function("Keys").invoke(direct())).payload)
            queue = local.queues["AEcho"]
            server.client.send_message(QueueUrl=queue.url, MessageBody='{"question": 5}')
            for _ in range(100):  # it comes back after the backoff, not after the visibility timeout
                found = server.client.get_queue_attributes(QueueUrl=queue.dead_letter_url, AttributeNames=["All"])
                if found["Attributes"]["ApproximateNumberOfMessages"] == "1":
                    return answer["outputs"]["result"]
                await asyncio.sleep(0.1)
            raise AssertionError(lines.records.lines)

    first, second = asyncio.run(run())
    if name is None:
        assert (first, second) == ("local", "local")
    else:
        assert first.startswith("key-")
        assert second.startswith("key-")
        assert first != second


def test_a_batch_with_a_bad_record_leaves_that_one_in_the_dead_letter_queue(make_project, make_local, models, lines):
    settings = {"defaults": {"sqs": {"batch_size": 10, "max_receive_count": 2, "backoff_seconds": 1}}}
    project = make_project({"aecho": AECHO}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=2) as server:
            # A cold start may outlast the visibility timeout, and the records would be received twice.
            await local.function("AEcho").invoke(b'{"inputs": {"question": "first"}}')
            queue = local.queues["AEcho"]
            entries = [{"Id": str(n), "MessageBody": json.dumps({"question": f"q{n}"})} for n in range(9)]
            entries.append({"Id": "bad", "MessageBody": "bad"})
            server.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
            for _ in range(100):
                dead = server.client.receive_message(QueueUrl=queue.dead_letter_url).get("Messages")
                if dead:
                    break
                await asyncio.sleep(0.1)
            left = server.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])["Attributes"]
            return dead, left

    dead, left = asyncio.run(run())
    assert [message["Body"] for message in dead] == ["bad"]
    assert int(left["ApproximateNumberOfMessages"]) + int(left["ApproximateNumberOfMessagesNotVisible"]) == 0
    assert models.stats()["requests"] == 10
    outcomes = [call["outcome"] for call in lines.records.calls]
    assert (outcomes.count("success"), outcomes.count("invalid_input")) == (10, 2)
    (told,) = [line for line in lines.lines if "dead-letter queue" in line.get("message", "")]
    assert told["message"] == "goes to the dead-letter queue after 2 receives (max_receive_count)"


def test_batches_at_once_stay_within_maximum_concurrency(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 1, "maximum_concurrency": 2}, "reserved_concurrency": 5}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=30) as server:
            url = local.queues["Sleeper"].url
            for _ in range(6):
                server.client.send_message(QueueUrl=url, MessageBody='{"seconds": 0.3}')
            peak = 0
            for _ in range(600):
                peak = max(peak, local.function("Sleeper")._active)
                if len(lines.records.calls) == 6:
                    break
                await asyncio.sleep(0.02)
            return peak

    assert asyncio.run(run()) == 2
    assert [call["outcome"] for call in lines.records.calls] == ["success"] * 6


def test_a_throttled_batch_goes_back_to_the_queue_and_is_done_later(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 1}, "reserved_concurrency": 1}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=1) as server:
            busy = asyncio.create_task(local.function("Sleeper").invoke(direct(seconds=1.5)))
            await asyncio.sleep(0.2)
            server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            await busy
            for _ in range(100):
                if len(lines.records.calls) == 2:
                    return
                await asyncio.sleep(0.1)

    asyncio.run(run())
    assert [call["source"] for call in lines.records.calls] == ["direct", "sqs"]


def test_a_window_gathers_records_into_one_batch(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 100, "window_seconds": 2}}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=30) as server:
            for _ in range(30):
                server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            for _ in range(100):
                if len(lines.records.calls) == 30:
                    return
                await asyncio.sleep(0.1)

    asyncio.run(run())
    assert len({call["function_request_id"] for call in lines.records.calls}) == 1


def http_request(url, body):
    return urllib.request.Request(url, body, {"Content-Type": "application/json"})


def status_of(request):
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def wait_for(path_has, seconds=10.0):
    end = time.monotonic() + seconds
    while not path_has():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_command_serves_until_a_signal_and_leaves_nothing(command, number, status):
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        body = json.dumps({"question": "q"}).encode()
        with urllib.request.urlopen(http_request(f"{url}/Answer", body), timeout=10) as answer:
            assert json.load(answer) == {"answer": "A sample answer."}
        assert processes()
        process.send_signal(number)
        assert process.wait(timeout=10) == status
        out, err = process.stdout.read(), process.stderr.read()
    assert "queue http://" in out
    assert "Traceback" not in err


def test_functions_die_with_a_command_that_was_killed(command):
    with command("local", "--project", str(QUICKSTART), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        urllib.request.urlopen(http_request(f"{url}/Answer", b'{"question": "q"}'), timeout=10).close()
        assert processes()
        process.kill()
        wait_for(lambda: not processes())


def test_a_taken_port_is_exit_1_with_the_way_out(command):
    with command("local", "--project", str(QUICKSTART), "--port", "0", "--model-server") as first:
        port = first.stdout.readline().split()[1].rpartition(":")[2]
        with command("local", "--project", str(QUICKSTART), "--port", port, "--model-server") as second:
            _, err = second.communicate(timeout=20)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=10)
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
def test_invoke_prints_the_answer_and_tells_by_its_status(capfd, arguments, status, says):
    assert main(["invoke", *arguments, "--project", str(QUICKSTART), "--model-server"]) == status
    out, err = capfd.readouterr()
    assert says in out
    assert len(out.splitlines()) == 1
    assert all(json.loads(line) for line in err.splitlines())


def test_invoke_takes_bare_inputs_as_text_or_as_a_file(capfd, tmp_path):
    file = tmp_path / "inputs.json"
    file.write_text('{"question": "q"}')
    for inputs in ('{"question": "q"}', str(file)):
        assert main(["invoke", "Answer", "--inputs", inputs, "--project", str(QUICKSTART), "--model-server"]) == 0
        answer = {"program": "Answer", "outputs": {"answer": "A sample answer."}}
        assert json.loads(capfd.readouterr().out) == answer


def test_inputs_given_as_an_event_are_refused_with_the_option_to_use(capfd, tmp_path):
    file = tmp_path / "inputs.json"
    file.write_text('{"question": "q"}')
    assert main(["invoke", "Answer", "--event", str(file), "--project", str(QUICKSTART), "--model-server"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["errorType"] == "UnknownEvent"
    assert "bare inputs go with --inputs" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["invoke", "Answer", "--inputs", "{question", "--project", str(QUICKSTART)], "--inputs: not JSON"),
        (["invoke", "Answer", "--inputs", "/nowhere", "--project", str(QUICKSTART)], "/nowhere: No such file"),
        (["invoke", "Answer", "--inputs", "[1]", "--project", str(QUICKSTART)], "--inputs: must be a JSON object"),
        (["invoke", "Answer", "--inputs", '"q"', "--project", str(QUICKSTART)], "--inputs: must be a JSON object"),
        (["invoke", "--inputs", "{}", "--project", str(QUICKSTART)], "--inputs needs a program: Answer, Perspectives"),
        (["invoke", "Nope", "--event", str(EVENTS / "rest.json"), "--project", str(QUICKSTART)], "no program 'Nope'"),
        (["invoke", "--event", "/nowhere.json", "--project", str(QUICKSTART)], "/nowhere.json: No such file"),
        (["invoke", "--event", str(EVENTS / "README.md"), "--project", str(QUICKSTART)], "not JSON"),
        (["local", "--project", "/nowhere"], "/nowhere/dspy.config.yaml: no such file"),
    ],
)
def test_wrong_arguments_are_exit_2(capsys, arguments, says):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


WHERE = """
class Where(dspy.Module):
    async def aforward(self) -> str:
        import runtime_client
        return runtime_client.__file__
"""


def test_the_portable_runtime_client_serves_as_the_native_one_does(make_project, models, tmp_path, monkeypatch):
    from dspy_lambda_infra.local import environment

    folder = str(Path(environment.__file__).parent / "portable")
    monkeypatch.setattr(environment, "_python_path", lambda: {"PYTHONPATH": folder})
    source = AECHO + WHERE
    project = make_project({"aecho": source})

    async def run():
        local = LocalLambda(load_project(project), {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url})
        async with local:
            function = local.function(CATALOGUE)
            events = [
                {"program": "Where", "inputs": {}},
                {"program": "AEcho", "inputs": {"question": "ü😀"}},
                {"program": "AEcho", "inputs": {}},
                {"program": "AEcho", "inputs": {"question": "again"}},
            ]
            return [json.loads((await function.invoke(json.dumps(event).encode())).payload) for event in events]

    where, unicode, error, again = asyncio.run(run())
    assert where["outputs"]["result"].startswith(folder)
    assert unicode["outputs"]["answer"] == "gpt-4.1-nano: ü😀"
    assert error["errorType"] == "InvalidInput"
    assert again["outputs"]["answer"] == "gpt-4.1-nano: again"


ORPHANS = """
import os, subprocess
class Orphans(dspy.Module):
    async def aforward(self, session: bool) -> str:
        subprocess.Popen(["sleep", "777"], start_new_session=session)
        os._exit(3)
"""


@pytest.mark.parametrize("session", [False, True])
def test_what_a_program_started_dies_with_its_environment(make_project, make_local, session):
    project = make_project({"orphans": ORPHANS})

    async def run():
        async with make_local(project) as local:
            if local.writable and session:
                pytest.skip(f"no process namespaces on this machine: {local.writable}")
            answer = await asyncio.wait_for(local.function("Orphans").invoke(direct(session=session)), 10)
            return answer.error

    assert asyncio.run(run()) == "Runtime.ExitError"
    listed = subprocess.run(["ps", "axeww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if line.startswith("sleep 777") and RUN in line]


def test_a_long_error_keeps_its_name(make_project, make_local):
    project = make_project({"sleeper": SLEEPER})

    async def run():
        async with make_local(project) as local:
            function = local.function("Sleeper")
            misfit = json.dumps({"inputs": {f"seconds{n}": 1 for n in range(9)} | {"seconds": "x" * 20_000}}).encode()
            named = await function.invoke(misfit)
            raised = await function.invoke(json.dumps({"k" * 10_000: 1}).encode())
            return named.error, raised.error, (await function.invoke(direct())).error

    assert asyncio.run(run()) == ("InvalidInput", "UnknownEvent", None)


def test_a_failed_init_is_logged_with_its_reason(make_project, make_local, lines):
    project = make_project(
        {"gone": "import os\nos._exit(7) if 'AWS_LAMBDA_RUNTIME_API' in os.environ else None\n" + ECHO}
    )

    async def run():
        async with make_local(project) as local:
            return await local.function("Echo").invoke(direct(question="q"))

    assert asyncio.run(run()).error == "Runtime.ExitError"
    (report,) = lines.reports_of("platform.initReport")
    assert (report["status"], report["errorType"]) == ("error", "Runtime.ExitError")
    assert report["errorMessage"] == "Error: Runtime exited with error: exit status 7"


def test_records_of_every_shape_are_polled_and_split_to_fit(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 10}}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})
    large = json.dumps({"more": "x" * 1_000_000})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=60) as server:
            url = local.queues["Sleeper"].url
            binary = {"blob": {"DataType": "Binary", "BinaryValue": b"\xff"}}
            server.client.send_message(QueueUrl=url, MessageBody="{}", MessageAttributes=binary)
            for _ in range(9):
                server.client.send_message(QueueUrl=url, MessageBody=large)
            for _ in range(150):
                if len(lines.records.calls) == 10:
                    return
                await asyncio.sleep(0.1)

    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["success"] * 10


def test_the_poller_outlives_a_queue_that_cannot_be_read(make_project, make_local, lines, monkeypatch):
    project = make_project({"sleeper": SLEEPER}, **{"lambda": {"defaults": {"sqs": {}}}})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=60) as server:
            await asyncio.sleep(0.2)
            real = server.client.receive_message

            def failing(**arguments):
                monkeypatch.setattr(server.client, "receive_message", real)
                raise EndpointConnectionError(endpoint_url="moto")

            monkeypatch.setattr(server.client, "receive_message", failing)
            await asyncio.sleep(1.2)
            server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            for _ in range(100):
                if lines.records.calls:
                    return
                await asyncio.sleep(0.1)

    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["success"]
    assert any("cannot be read" in line.get("message", "") for line in lines.lines)


def test_the_front_passes_requests_on_as_they_came(make_project, make_local):
    source = "class Echoes(dspy.Module):\n    async def aforward(self, text: str) -> int:\n        return len(text)\n"
    project = make_project({"echoes": source})

    async def run():
        async with make_local(project) as local, local.front("http", 0) as url:

            def send(body, **headers):
                request = urllib.request.Request(
                    f"{url}/Echoes?a=%20b", body, {"Content-Type": "application/json", **headers}
                )
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, json.load(answer)
                return None

            cjk = json.dumps({"text": "字" * 1_100_000}, ensure_ascii=False).encode()
            return (
                await asyncio.to_thread(send, cjk),
                await asyncio.to_thread(send, gzip.compress(b'{"text": "t"}'), **{"Content-Encoding": "gzip"}),
                await asyncio.to_thread(send, b'{"text": "t"}', **{"X-Latin": "\xe9"}),
            )

    large, zipped, latin = asyncio.run(run())
    assert large == (200, {"result": 1_100_000})
    assert zipped is None
    assert latin == (200, {"result": 1})


SAYS = """
import os
print('hello')
WORD = os.environ['MY_WORD']
class Says(dspy.Module):
    async def aforward(self) -> str:
        return WORD
"""


def test_env_files_reach_import_and_functions_and_prints_go_to_stderr(make_project, capfd):
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


def test_a_rate_limited_record_is_done_when_the_provider_has_room_again(make_project, make_local, models, lines):
    settings = {"defaults": {"sqs": {"max_receive_count": 3}, "timeout_seconds": 3}}
    project = make_project({"aecho": AECHO}, **{"lambda": settings})
    models.behave(rate_limit_rate=1, retry_after_seconds=4)

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=300) as server:
            server.client.send_message(QueueUrl=local.queues["AEcho"].url, MessageBody='{"question": "q"}')
            for _ in range(150):
                if len(lines.records.calls) == 1:
                    models.behave()
                if len(lines.records.calls) == 2:
                    return
                await asyncio.sleep(0.1)

    begin = time.monotonic()
    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["rate_limited", "success"]
    assert 3 < time.monotonic() - begin < 30
