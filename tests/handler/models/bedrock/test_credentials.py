"""Credentials from every source that a function or a laptop has, each through real calls."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dspy
import pytest
from dspy._vendor.lm15.cloud import chains
from dspy.utils.exceptions import LMAuthError, LMNotConfiguredError

from dspy_lambda.models.bedrock import credentials
from dspy_lambda.models.bedrock.credentials import forget_credentials
from tests.handler.models.bedrock.test_signing import expected


class Endpoint:
    """The container endpoint that SnapStart uses; hands out `lifetime` seconds of validity, or an error status."""

    def __init__(self):
        self.tokens = []
        self.lifetime = 3600
        self.status = 200
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                endpoint.tokens.append(self.headers["authorization"])
                endpoint.asked.set()
                endpoint.gate.wait(30)
                end = datetime.now(UTC) + timedelta(seconds=endpoint.lifetime)
                body = {
                    "AccessKeyId": f"CONTAINER{len(endpoint.tokens)}",
                    "SecretAccessKey": "container secret",
                    "Token": "container token",
                    "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
                data = json.dumps(body).encode() if endpoint.status == 200 else b"a secret text"
                self.send_response(endpoint.status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def endpoint(no_keys, monkeypatch):
    found = Endpoint()
    url = f"http://127.0.0.1:{found.server.server_port}/2021-08-11/credentials"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container authorization")
    yield found
    found.gate.set()
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def no_keys(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)


@pytest.fixture
def lm(bedrock):
    return dspy.LM("bedrock/amazon.nova-lite-v1:0", api_base=bedrock.url, cache=False, num_retries=0)


def key_of(sent):
    return sent.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def test_keys_in_the_environment_are_read_for_each_request(lm, bedrock, monkeypatch):
    lm("q")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ROTATED")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    asyncio.run(lm.acall("q"))
    assert [key_of(sent) for sent in bedrock.sent] == ["AKIDEXAMPLE", "ROTATED"]
    assert [sent.headers.get("x-amz-security-token") for sent in bedrock.sent] == ["a session token", None]


def test_a_bearer_token_is_preferred(lm, bedrock, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "a-token")
    lm("q")
    assert bedrock.sent[0].headers["authorization"] == "Bearer a-token"


@pytest.mark.parametrize("door", ["bedrock/", "bedrock-chat:", "bedrock-mantle-chat:", "bedrock-anthropic:"])
def test_the_container_endpoint_is_asked_once_for_all_doors(bedrock, endpoint, door):
    for _ in range(2):
        lm = dspy.LM(f"{door}m", api_base=bedrock.url, cache=False)
        lm("q")
        asyncio.run(lm.acall("q"))
    assert endpoint.tokens == ["container authorization"]
    for sent in bedrock.sent:
        assert key_of(sent) == "CONTAINER1"
        assert sent.headers["authorization"] == expected(sent, "container secret", "container token")


def test_parallel_calls_fetch_once(lm, bedrock, endpoint):
    endpoint.gate.clear()
    with ThreadPoolExecutor(25) as pool:
        calls = [pool.submit(lm, "q") for _ in range(25)]

        async def on_loop():
            tasks = [asyncio.create_task(lm.acall("q")) for _ in range(25)]
            await asyncio.to_thread(endpoint.asked.wait, 30)
            endpoint.gate.set()
            await asyncio.gather(*tasks)

        asyncio.run(on_loop())
        for call in calls:
            call.result()
    assert len(bedrock.sent) == 50
    assert len(endpoint.tokens) == 1


def test_credentials_are_renewed_before_they_expire(lm, bedrock, endpoint, monkeypatch):
    endpoint.lifetime = 240  # within lm15's margin of five minutes: renewed, but not at each call
    lm("q")
    lm("q")
    assert len(endpoint.tokens) == 1
    monkeypatch.setattr(credentials._kept, "_until", 0.0)
    lm("q")
    assert [key_of(sent) for sent in bedrock.sent] == ["CONTAINER1", "CONTAINER1", "CONTAINER2"]


def test_credentials_far_from_their_end_are_kept(lm, endpoint, monkeypatch):
    lm("q")
    monkeypatch.setattr(credentials._kept, "_until", 0.0)
    lm("q")
    assert len(endpoint.tokens) == 1


def test_a_failed_renewal_does_not_end_valid_credentials(lm, bedrock, endpoint, monkeypatch):
    endpoint.lifetime = 240
    lm("q")
    endpoint.status = 500
    monkeypatch.setattr(credentials._kept, "_until", 0.0)
    lm("q")
    lm("q")
    assert [key_of(sent) for sent in bedrock.sent] == ["CONTAINER1"] * 3
    assert len(endpoint.tokens) == 2


@pytest.mark.parametrize("fault", ["status", "expired", "absent"])
def test_an_endpoint_that_fails_is_one_clear_error(lm, bedrock, endpoint, monkeypatch, fault):
    if fault == "status":
        endpoint.status = 500
    elif fault == "expired":
        endpoint.lifetime = -1
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
    with pytest.raises(LMAuthError, match="bedrock: could not get credentials: ") as caught:
        lm("q")
    assert "RouterConfig" not in str(caught.value)
    assert "a secret text" not in str(caught.value)
    with pytest.raises(LMAuthError, match="could not get credentials"):
        asyncio.run(lm.acall("q"))
    assert bedrock.sent == []
    endpoint.status, endpoint.lifetime = 200, 3600
    if fault != "absent":
        assert lm("q")


class CountedLock:
    """A lock that tells when a number of threads have come to it."""

    def __init__(self, wanted):
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(0)
        self._wanted = wanted

    def __enter__(self):
        self._waiting.release()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def wait(self):
        for _ in range(self._wanted):
            assert self._waiting.acquire(timeout=30)


def test_calls_that_waited_for_a_failing_endpoint_do_not_ask_it_again(endpoint, lm, monkeypatch):
    endpoint.status = 500
    endpoint.gate.clear()
    lock = CountedLock(8)
    monkeypatch.setattr(credentials._kept, "_lock", lock)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(lm, "q") for _ in range(8)]
        lock.wait()
        endpoint.gate.set()
        assert all(isinstance(call.exception(), LMAuthError) for call in calls)
    assert len(endpoint.tokens) == 1


def test_forgotten_credentials_are_fetched_again(lm, bedrock, endpoint):
    lm("q")
    forget_credentials()
    assert credentials._kept._value is None
    lm("q")
    assert [key_of(sent) for sent in bedrock.sent] == ["CONTAINER1", "CONTAINER2"]


def test_credentials_can_be_forgotten_while_they_are_fetched(lm, endpoint):
    endpoint.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lm, "q")
        endpoint.asked.wait(30)
        forget_credentials()  # a snapshot taken now must not block the restored process
        assert not credentials._kept._lock.locked()
        endpoint.gate.set()
        assert call.result()


def test_none_at_all_is_a_clear_error(lm, bedrock, no_keys):
    for call in (lambda: lm("q"), lambda: asyncio.run(lm.acall("q"))):
        with pytest.raises(LMNotConfiguredError, match="bedrock: found no AWS credentials") as caught:
            call()
        assert "aws sso login" in str(caught.value)
        assert "RouterConfig" not in str(caught.value)
    assert bedrock.sent == []


def test_no_region_is_a_clear_error(monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(LMNotConfiguredError, match="AWS_REGION"):
        dspy.LM("bedrock/amazon.nova-lite-v1:0", cache=False)("q")


def test_a_profile_of_a_laptop_is_used(lm, bedrock, no_keys, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = s\n"
        "[work]\naws_access_key_id = WORK\naws_secret_access_key = s2\naws_session_token = t2\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    lm("q")
    monkeypatch.setenv("AWS_PROFILE", "work")
    forget_credentials()
    lm("q")
    assert [key_of(sent) for sent in bedrock.sent] == ["DEFAULT", "WORK"]
    assert bedrock.sent[1].headers["authorization"] == expected(bedrock.sent[1], "s2", "t2")


def test_a_rewritten_file_is_read_again(lm, bedrock, no_keys, monkeypatch, tmp_path):
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    (tmp_path / "credentials").write_text(text.format("OLD"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    lm("q")
    (tmp_path / "credentials").write_text(text.format("NEW"))
    assert credentials._AGE <= 300
    monkeypatch.setattr(credentials._kept, "_until", 0.0)
    lm("q")
    assert [key_of(sent) for sent in bedrock.sent] == ["OLD", "NEW"]


def test_a_profiles_process_is_run(lm, bedrock, no_keys, monkeypatch, tmp_path):
    answer = {"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    (tmp_path / "config").write_text(f"[profile tool]\ncredential_process = cat {tmp_path / 'answer.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "tool")
    lm("q")
    assert bedrock.sent[0].headers["authorization"] == expected(bedrock.sent[0], "s", "t")


def test_a_web_identity_is_exchanged_for_the_role(lm, bedrock, no_keys, monkeypatch, tmp_path):
    """lm15 has no setting for the address of STS, so its HTTP function is replaced."""
    asked = []
    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEB</AccessKeyId>"
        f"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{end}</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )

    def http(method, url, headers, body, timeout):
        asked.append((method, url, body))
        return 200, {}, answer.encode()

    monkeypatch.setattr(chains, "_default_http", http)
    (tmp_path / "token").write_text("a-web-token\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    lm("q")
    lm("q")
    ((method, url, body),) = asked
    assert (method, url) == ("POST", "https://sts.us-east-1.amazonaws.com/")
    assert b"WebIdentityToken=a-web-token" in body
    assert bedrock.sent[1].headers["authorization"] == expected(bedrock.sent[1], "s", "t")
