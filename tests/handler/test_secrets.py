"""Secrets, read from moto's server and from a replacement of the parameters-and-secrets extension."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

import dspy_lambda.secrets
from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import EXTENSION_PORT, SECRETS, Settings
from dspy_lambda_infra.local.queues import QueueServer
from tests.conftest import QUICKSTART, ROOT

VALUE = "sk-value-0123456789"


def resolve(variables):
    return dspy_lambda.secrets.resolve(Settings.from_environment(variables))


@pytest.fixture(scope="module")
def moto():
    """The address of the server, and clients of it."""
    server = QueueServer()
    server.start()
    where = {"endpoint_url": server.address, "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    yield server.address, boto3.client("ssm", **where, **keys), boto3.client("secretsmanager", **where, **keys)
    server.stop()


@pytest.fixture
def use_endpoint(monkeypatch):
    """Make the SDK call this address."""

    def use(address):
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.fixture
def aws(moto, use_endpoint):
    """Put values into the account."""
    address, ssm, secrets = moto
    use_endpoint(address)
    made = []

    class Account:
        def parameter(self, name, value):
            ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)

        def secret(self, name, **value):
            made.append(secrets.create_secret(Name=name, **value)["ARN"])
            return made[-1]

    yield Account()
    for arn in made:
        secrets.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def serve():
    """Serve HTTP on a free port with a function that gets (path, headers) and returns (status, body)."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = answer(self.path, self.headers)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self):
                self.headers["body"] = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.do_GET()

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_secure_string_is_read_from_ssm(aws):
    aws.parameter("/app/prod/OPENAI_API_KEY", VALUE)
    assert resolve({SECRETS: "OPENAI_API_KEY=ssm:/app/prod/OPENAI_API_KEY"}) == {"OPENAI_API_KEY": VALUE}


def test_secrets_manager_values_are_read_whole_by_key_and_by_arn(aws):
    aws.secret("plain", SecretString=VALUE)
    arn = aws.secret("keys", SecretString=json.dumps({"open": VALUE, "number": 5}))
    aws.secret("bytes", SecretBinary=VALUE.encode())
    places = {
        "A": "secretsmanager:plain",
        "B": "secretsmanager:keys#open",
        "C": f"secretsmanager:{arn}#open",
        "D": "secretsmanager:keys#number",
        "E": "secretsmanager:bytes",
    }
    found = resolve({SECRETS: " ".join(f"{name}={place}" for name, place in places.items())})
    assert found == {"A": VALUE, "B": VALUE, "C": VALUE, "D": "5", "E": VALUE}


def test_a_variable_that_is_set_is_left_alone():
    """No request is sent: there is no account here."""
    assert resolve({SECRETS: "A=ssm:/a B=ssm:/b", "A": "mine", "B": "mine too"}) == {}


def test_an_empty_variable_counts_as_not_set(aws):
    aws.parameter("/a", VALUE)
    assert resolve({SECRETS: "A=ssm:/a", "A": ""}) == {"A": VALUE}


@pytest.mark.parametrize("variables", [{}, {SECRETS: ""}, {SECRETS: "  \n"}])
def test_without_secrets_no_service_is_called(variables):
    assert resolve(variables) == {}


@pytest.mark.parametrize(
    ("place", "code"), [("ssm:/app/none", "ParameterNotFound"), ("secretsmanager:none", "ResourceNotFoundException")]
)
def test_a_missing_secret_is_named_with_its_variable(aws, place, code):
    with pytest.raises(ConfigError, match=f"^OPENAI_API_KEY: {place} cannot be read \\({code}\\)"):
        resolve({SECRETS: f"OPENAI_API_KEY={place}"})


def parameters_of(headers, values):
    """SSM's answer to GetParameters."""
    names = json.loads(headers["body"])["Names"]
    found = [{"Name": name, "ARN": name, "Value": values[name]} for name in names if name in values]
    return 200, {"Parameters": found, "InvalidParameters": [name for name in names if name not in values]}


def test_ten_parameters_are_one_request(serve, use_endpoint):
    asked = []

    def answer(path, headers):
        asked.append(json.loads(headers["body"])["Names"])
        return parameters_of(headers, {f"/{n}": f"value {n}" for n in range(12)})

    use_endpoint(f"http://127.0.0.1:{serve(answer)}")
    found = resolve({SECRETS: " ".join(f"V{n}=ssm:/{n}" for n in range(12))})
    assert found == {f"V{n}": f"value {n}" for n in range(12)}
    assert [len(names) for names in asked] == [10, 2]


def test_the_missing_one_of_several_parameters_is_named(serve, use_endpoint):
    use_endpoint(f"http://127.0.0.1:{serve(lambda path, headers: parameters_of(headers, {'/a': VALUE}))}")
    with pytest.raises(ConfigError, match=r"^B: ssm:/b cannot be read \(ParameterNotFound\): it does not exist in"):
        resolve({SECRETS: "A=ssm:/a B=ssm:/b"})


def test_a_parameter_of_another_account_is_requested_by_its_arn(serve, use_endpoint):
    arn = "arn:aws:ssm:us-east-1:999999999999:parameter/shared/key"
    use_endpoint(f"http://127.0.0.1:{serve(lambda path, headers: parameters_of(headers, {arn: VALUE}))}")
    assert resolve({SECRETS: f"A=ssm:{arn}"}) == {"A": VALUE}


def test_a_secret_with_several_keys_is_read_once(serve, use_endpoint):
    asked = []

    def answer(path, headers):
        asked.append(path)
        return 200, {"SecretString": json.dumps({"a": "1", "b": "2"})}

    use_endpoint(f"http://127.0.0.1:{serve(answer)}")
    assert resolve({SECRETS: "A=secretsmanager:x#a B=secretsmanager:x#b"}) == {"A": "1", "B": "2"}
    assert len(asked) == 1


@pytest.mark.parametrize("place", ["ssm:/a", "secretsmanager:a"])
def test_an_unresponsive_service_is_given_up_quickly(serve, use_endpoint, monkeypatch, place):
    monkeypatch.setattr(dspy_lambda.secrets, "_READ_SECONDS", 0.1)
    asked = []

    def hang(path, headers):
        asked.append(path)
        time.sleep(1)
        return 200, {}

    use_endpoint(f"http://127.0.0.1:{serve(hang)}")
    with pytest.raises(ConfigError, match=r"^A: .* cannot be read \(ReadTimeoutError\): no answer; a function in a V"):
        resolve({SECRETS: f"A={place}"})
    assert len(asked) == 2


def test_binary_secrets_are_named_but_not_shown(aws):
    aws.secret("bytes", SecretBinary=b"\xff" + VALUE.encode())
    with pytest.raises(ConfigError, match=r"^A: the secret secretsmanager:bytes is not text\.$") as raised:
        resolve({SECRETS: "A=secretsmanager:bytes"})
    assert VALUE not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("place", ["ssm:/app/none", "secretsmanager:none"])
def test_a_refused_request_is_reported_only_by_its_code(serve, use_endpoint, place):
    denied = {"__type": "AccessDeniedException", "Message": f"role/x may not read {VALUE}"}
    use_endpoint(f"http://127.0.0.1:{serve(lambda path, headers: (400, denied))}")
    with pytest.raises(ConfigError, match=r"\(AccessDeniedException\): the function's role may not read") as raised:
        resolve({SECRETS: f"A={place}"})
    assert VALUE not in "".join(traceback.format_exception(raised.value))


def test_a_service_that_cannot_be_reached_is_an_error(use_endpoint):
    use_endpoint("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"A: ssm:/a cannot be read \(EndpointConnectionError\)"):
        resolve({SECRETS: "A=ssm:/a"})


def test_aws_region_alone_sets_the_region(aws, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    aws.parameter("/a", VALUE)
    assert resolve({SECRETS: "A=ssm:/a"}) == {"A": VALUE}


def test_a_missing_region_is_an_error(use_endpoint, monkeypatch):
    use_endpoint("http://127.0.0.1:9")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(ConfigError, match=r"A: ssm:/a cannot be read \(NoRegionError\): set AWS_REGION"):
        resolve({SECRETS: "A=ssm:/a"})


def test_a_null_key_is_refused(aws):
    aws.secret("keys", SecretString=json.dumps({"key": None}))
    with pytest.raises(
        ConfigError, match=r"^A: the secret secretsmanager:keys has null for 'key'; store the key there"
    ):
        resolve({SECRETS: "A=secretsmanager:keys#key"})


@pytest.mark.parametrize("text", [VALUE, json.dumps([VALUE]), json.dumps({"other": VALUE}), f'{{"{VALUE}'])
def test_a_secret_without_the_key_is_named_and_not_shown(aws, caplog, capsys, text):
    aws.secret("keys", SecretString=text)
    caplog.set_level(logging.INFO)
    with pytest.raises(ConfigError) as raised:
        resolve({SECRETS: "A=secretsmanager:keys#key"})
    assert str(raised.value) == "A: the secret secretsmanager:keys is not a JSON object with the key 'key'."
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + caplog.text
    assert VALUE not in shown + "".join(capsys.readouterr())


def answers(path, headers):
    """The extension's answer."""
    if headers["X-Aws-Parameters-Secrets-Token"] != "session":
        return 401, b"no token"
    url = urlsplit(path)
    query = parse_qs(url.query)
    if url.path == "/systemsmanager/parameters/get" and query["withDecryption"] == ["true"]:
        return 200, {"Parameter": {"Name": query["name"][0], "Value": f"{VALUE} of {query['name'][0]}"}}
    if url.path == "/secretsmanager/get":
        return 200, {"SecretString": json.dumps({"key": f"{VALUE} of {query['secretId'][0]}"})}
    return 400, b"bad request"


SESSION = {"AWS_SESSION_TOKEN": "session"}
PLACES = {SECRETS: "A=ssm:/a/b+c B=secretsmanager:app/x@y#key", "AWS_SESSION_TOKEN": "session"}
VALUES = {"A": f"{VALUE} of /a/b+c", "B": f"{VALUE} of app/x@y"}


def test_the_extension_is_asked_before_the_sdk(serve, use_endpoint):
    use_endpoint("http://127.0.0.1:9")
    assert resolve({**PLACES, EXTENSION_PORT: str(serve(answers))}) == VALUES


def test_an_extension_that_is_not_ready_yet_is_asked_again(serve, use_endpoint):
    use_endpoint("http://127.0.0.1:9")
    refused = []

    def soon(path, headers):
        if len(refused) < 3:
            refused.append(path)
            return 400, b"not ready to serve traffic, please wait"
        return answers(path, headers)

    assert resolve({**PLACES, EXTENSION_PORT: str(serve(soon))}) == VALUES
    assert len(refused) == 3


def never(path, headers):
    return 400, b"not ready to serve traffic, please wait"


def hangs(path, headers):
    time.sleep(3)
    return 200, {"Parameter": {"Value": "too late"}}


@pytest.mark.parametrize(
    "answer",
    [never, hangs, lambda *_: (200, b"no JSON"), lambda *_: (200, ["no object"]), lambda *_: (200, {"Parameter": {}})],
    ids=["never ready", "no answer", "no JSON", "no object", "no value"],
)
def test_the_sdk_is_used_if_the_extension_does_not_answer(serve, aws, answer):
    aws.parameter("/a", VALUE)
    port, begin = serve(answer), time.monotonic()
    assert resolve({**SESSION, SECRETS: "A=ssm:/a", EXTENSION_PORT: str(port)}) == {"A": VALUE}
    assert time.monotonic() - begin > 0.9


def test_an_extension_without_an_answer_keeps_only_the_first_secret_waiting(serve, aws):
    asked = set()

    def refuse(path, headers):
        asked.add(path)
        return never(path, headers)

    for name in ("/a", "/b"):
        aws.parameter(name, VALUE)
    found = resolve({**SESSION, SECRETS: "A=ssm:/a B=ssm:/b", EXTENSION_PORT: str(serve(refuse))})
    assert found == {"A": VALUE, "B": VALUE}
    assert len(asked) == 1


def test_the_sdk_is_used_without_the_extension(aws):
    aws.parameter("/a", VALUE)
    assert resolve({**SESSION, SECRETS: "A=ssm:/a", EXTENSION_PORT: "9"}) == {"A": VALUE}


START = """
import os, sys
import dspy_lambda.main
print("boto3" in sys.modules, file=sys.__stdout__)
assert os.environ["OPENAI_API_KEY"] == os.environ["EXPECTED"]
"""


@pytest.mark.parametrize(("own", "loaded"), [({"OPENAI_API_KEY": "mine"}, "False"), ({}, "True")])
def test_the_sdk_is_imported_only_if_it_is_needed(aws, own, loaded, monkeypatch):
    aws.parameter("/quickstart/prod/OPENAI_API_KEY", VALUE)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in {
        **own,
        "EXPECTED": own.get("OPENAI_API_KEY", VALUE),
        SECRETS: "OPENAI_API_KEY=ssm:/quickstart/prod/OPENAI_API_KEY",
        "DSPY_LAMBDA_PROJECT": str(QUICKSTART),
        "DSPY_LAMBDA_API_BASE": "http://127.0.0.1:9/v1",
    }.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == loaded
    assert VALUE not in done.stdout + done.stderr


def test_a_function_whose_secret_cannot_be_read_fails_at_init_with_the_reason(aws, monkeypatch):
    monkeypatch.setenv(SECRETS, "OPENAI_API_KEY=ssm:/none")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConfigError: OPENAI_API_KEY: ssm:/none cannot be read" in done.stderr.splitlines()[-1]


def test_a_trailing_newline_is_stripped_from_a_key(aws):
    aws.parameter("/a", f"{VALUE}\n")
    assert resolve({SECRETS: "A=ssm:/a"}) == {"A": VALUE}


def test_a_changed_value_is_read_again(aws):
    """As required when a snapshot is restored."""
    aws.parameter("/a", "old")
    assert resolve({SECRETS: "A=ssm:/a"}) == {"A": "old"}
    aws.parameter("/a", "new")
    assert resolve({SECRETS: "A=ssm:/a"}) == {"A": "new"}


def test_without_a_session_token_the_extension_is_not_asked(aws, serve):
    """A function with SnapStart has none, but the extension requires it."""
    aws.parameter("/a", VALUE)
    asked = []
    port = serve(lambda *request: asked.append(request))
    assert resolve({SECRETS: "A=ssm:/a", EXTENSION_PORT: str(port)}) == {"A": VALUE}
    assert asked == []


def test_renewed_keys_are_set_in_the_process_and_bypass_the_extension(aws, serve, monkeypatch):
    """The extension caches values for five minutes."""
    monkeypatch.setenv(SECRETS, "A=ssm:/a")
    monkeypatch.setenv("A", "old")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    monkeypatch.setenv(EXTENSION_PORT, str(serve(lambda *_: (200, {"Parameter": {"Value": "old"}}))))
    aws.parameter("/a", "new")
    assert dspy_lambda.secrets.renew(Settings.from_environment(os.environ), ["A"]) == {"A": "new"}
    assert os.environ["A"] == "new"
