"""Signatures, compared with botocore's for the requests that are really sent."""

import asyncio
import copy
import os
import random
import re
from contextlib import asynccontextmanager, contextmanager

import dspy
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from dspy._vendor.lm15.transports import StdlibAsyncTransport, StdlibTransport

from tests.handler.models.bedrock.bedrock_server import Sent, suitable

SCALE = int(os.environ.get("STRESS_SCALE", "1"))
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
IDS = (
    "amazon.nova-lite-v1:0",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-pro-v1:0",
    "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a1b2c3",
    "arn:aws:bedrock:ap-south-1:123456789012:provisioned-model/x9",
    "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/amazon.nova-pro-v1:0",
    "an id with spaces~and_%25+ü",
)
DOORS = ("bedrock/", "bedrock/converse/", "bedrock-chat:", "bedrock-mantle-chat:", "bedrock-anthropic:")
BASES = (
    None,
    "https://bedrock-runtime.eu-central-1.amazonaws.com",
    "https://vpce-1-2.bedrock-runtime.sa-east-1.vpce.amazonaws.com:8443/",
    "https://gateway.example:444/team%20a/~v1/%7Eb",
    "http://localhost:8080//twice/./../prefix/",
    "http://[::1]:9000/six",
)


def expected(sent: Sent, secret: str, session: str | None) -> str:
    """Return the Authorization header that botocore gives the same request at the same time."""
    found = AUTHORIZATION.fullmatch(sent.headers["authorization"])
    assert found, sent.headers["authorization"]
    assert {"host", "x-amz-date"} <= set(found["signed"].split(";"))
    assert sent.headers.get("x-amz-security-token") == session
    computed = {"x-amz-date", "x-amz-security-token"}
    headers = {name: sent.headers[name] for name in found["signed"].split(";") if name not in computed}
    request = AWSRequest("POST", sent.url, headers, sent.body)
    request.context["timestamp"] = sent.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(found["key"], secret, session), found["service"], found["region"])
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return str(request.headers["Authorization"])


class _Discarded:
    """Takes the chunks of a streamed answer."""

    async def send(self, chunk):
        pass


class _Answered:
    """What lm15 needs of an HTTP answer."""

    reason, http_version, headers = "OK", "HTTP/1.1", [("content-type", "application/json")]

    def __init__(self, sent: Sent) -> None:
        reply = suitable(sent)
        self.status = reply.status
        self._chunks = [reply.body] if reply.chunks is None else list(reply.chunks)

    def read(self):
        return b"".join(self._chunks)

    def __iter__(self):
        return iter(self._chunks)


class _AnsweredOnLoop(_Answered):
    async def read(self):
        return super().read()

    async def __aiter__(self):
        for chunk in self._chunks:
            yield chunk


@pytest.fixture
def sent(monkeypatch):
    """What leaves through lm15's transports, which answer without a network."""
    requests = []

    def record(request):
        headers = {name.lower(): value for name, value in request.headers}
        requests.append(Sent(request.url, headers, request.body))
        return requests[-1]

    @contextmanager
    def stream(_, request):
        yield _Answered(record(request))

    @asynccontextmanager
    async def stream_on_loop(_, request):
        yield _AnsweredOnLoop(record(request))

    monkeypatch.setattr(StdlibTransport, "stream", stream)
    monkeypatch.setattr(StdlibAsyncTransport, "stream", stream_on_loop)
    return requests


def text(random_):
    letters = "aZ09 \n\t\"'\\é漢🎉\u2028{}[]#&%+/"
    return "".join(random_.choices(letters, k=random_.randint(1, 60))) + "."


def test_signatures_equal_those_of_botocore(sent, monkeypatch):
    generated = random.Random(10)
    combinations = [(door, model, base) for door in DOORS for model in IDS for base in BASES]
    lms = {}
    for combination in combinations:
        door, model, base = combination
        options = {"api_base": base} if base else {"aws_region_name": generated.choice(("eu-north-1", "us-east-2"))}
        lms[combination] = dspy.LM(door + model, cache=False, **options)

    async def on_loop(lms_and_texts):
        await asyncio.gather(*(lm.acall(prompt) for lm, prompt in lms_and_texts))
        with dspy.context(send_stream=_Discarded()):
            await asyncio.gather(*(lm.acall(prompt) for lm, prompt in lms_and_texts))

    checked = 0
    for index in range(2 * SCALE):
        session = None if index % 3 == 0 else "".join(generated.choices("AZaz09+/=", k=400))
        secret = "".join(generated.choices("AZaz09+/", k=40))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKID{index}")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_SESSION_TOKEN", session or "")
        monkeypatch.setenv("AWS_REGION", generated.choice(("us-east-1", "eu-west-3", "us-gov-west-1")))
        with dspy.context(disable_history=True):
            for lm in lms.values():
                lm(text(generated))
            asyncio.run(on_loop([(lm, text(generated)) for lm in lms.values()]))
        for request in sent:
            assert request.headers["authorization"] == expected(request, secret, session), request.url
        checked += len(sent)
        sent.clear()
    assert checked == 6 * SCALE * len(combinations)


def test_a_signature_holds_for_the_bytes_on_the_wire(bedrock):
    for door in DOORS:
        for model in IDS[:-1]:
            lm = dspy.LM(door + model, api_base=f"{bedrock.url}/a%20prefix/~v1", cache=False)
            lm("é漢\n")
            asyncio.run(lm.acall("again"))
    assert len(bedrock.sent) == 2 * len(DOORS) * len(IDS[:-1])
    for request in bedrock.sent:
        assert request.headers["authorization"] == expected(request, "secret", "a session token")


@pytest.mark.parametrize("door", DOORS)
def test_the_region_of_an_lm_is_signed_for_behind_any_address(bedrock, door):
    dspy.LM(f"{door}m", api_base=bedrock.url, aws_region_name="eu-north-1", cache=False)("q")
    dspy.LM(f"{door}{IDS[2]}", api_base=bedrock.url, cache=False)("q")
    dspy.LM(f"{door}m", api_base=bedrock.url, cache=False)("q")
    regions = [AUTHORIZATION.fullmatch(request.headers["authorization"])["region"] for request in bedrock.sent]
    assert regions == ["eu-north-1", "eu-west-1", "us-east-1"]


def test_a_copied_lm_keeps_its_region(bedrock):
    lm = dspy.LM("bedrock/m", api_base=bedrock.url, aws_region_name="eu-north-1", cache=False)
    lm.copy(temperature=0.5)("q")
    copy.deepcopy(lm)("q")
    for request in bedrock.sent:
        assert "/eu-north-1/bedrock/" in request.headers["authorization"]


def test_a_bearer_token_is_sent_instead_of_a_signature(bedrock, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "a-token")
    for door in DOORS:
        dspy.LM(f"{door}m", api_base=bedrock.url, cache=False)("q")
        asyncio.run(dspy.LM(f"{door}m", api_base=bedrock.url, cache=False).acall("q"))
    for request in bedrock.sent:
        if request.url.endswith("/messages"):
            assert request.headers["x-api-key"] == "a-token"
        else:
            assert request.headers["authorization"] == "Bearer a-token"
        assert "x-amz-security-token" not in request.headers
