import json
import urllib.error
import urllib.request

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

MODEL = "amazon.nova-lite-v1:0"
NO_RETRIES = Config(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)


@pytest.fixture
def bedrock(models, monkeypatch):
    """botocore's client of Bedrock, without retries, with any credentials."""
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)

    def client(access_key="local", secret_key="local", token=None):
        return botocore.session.get_session().create_client(
            "bedrock-runtime",
            region_name="eu-west-1",
            endpoint_url=models.address,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
            config=NO_RETRIES,
        )

    return client


@pytest.fixture
def send(models):
    """Post a JSON body with headers; return the status, the headers and the body."""

    def send(path, body, **headers):
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{models.address}{path}", data, {"Content-Type": "application/json"})
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    return send


@pytest.fixture
def sign(models):
    """Return the headers with which botocore signs a request."""

    def sign(path, body, service, access_key="local", secret_key="local", token=None):
        data = json.dumps(body).encode()
        request = AWSRequest("POST", f"{models.address}{path}", {"Content-Type": "application/json"}, data)
        SigV4Auth(Credentials(access_key, secret_key, token), service, "eu-west-1").add_auth(request)
        names = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
        return {name.replace("-", "_"): request.headers[name] for name in names if name in request.headers}

    return sign


def ask(text="hi", **more):
    """A request to Converse."""
    return {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": text}]}], **more}
