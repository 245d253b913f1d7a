import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from dspy_lambda_infra.deploy.models import fetch_access
from dspy_lambda_infra.project import load_project
from tests.support import ECHO

ARN = "arn:aws:bedrock:us-east-1:123456789012"
GRANTED = {
    "authorizationStatus": "AUTHORIZED",
    "entitlementAvailability": "AVAILABLE",
    "regionAvailability": "AVAILABLE",
    "agreementAvailability": {"status": "AVAILABLE"},
}
AVAILABILITY, MODEL, PROFILE = "/foundation-model-availability/", "/foundation-models/", "/inference-profiles/"
DENIED = (403, {"__type": "AccessDeniedException", "message": "User arn:aws:iam::1:user/secret is not authorized"})
ABSENT = (404, {"__type": "ResourceNotFoundException", "message": "no"})


@pytest.fixture
def bedrock(monkeypatch, credentials):
    """Bedrock's control plane: answers by path, as (status, body); every other path is unknown. botocore asks it."""
    answers, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(self.path)
            asked.append((path, self.headers["Authorization"].split("/")[2]))
            status, body = answers.get(path, ABSENT)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("x-amzn-ErrorType", body.get("__type", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", f"http://127.0.0.1:{server.server_port}")
        answers["asked"] = asked
        yield answers
        server.shutdown()


@pytest.fixture
def ask(make_project):
    """Return what the account says about one model, as (state, detail)."""

    def run(model, region="us-east-1", unavailable="", **settings):
        models = {"default": "m", "registry": {"m": {"model": model, **settings}}}
        (access,) = fetch_access(load_project(make_project({"echo": ECHO}, models=models)), region, unavailable)
        return access.state, access.detail

    return run


def test_a_model_with_access_is_granted_and_asked_for_in_its_region(bedrock, ask):
    bedrock[f"{AVAILABILITY}amazon.nova-lite-v1:0"] = (200, GRANTED)
    assert ask("bedrock/amazon.nova-lite-v1:0") == ("granted", "access granted")
    assert ask("bedrock-chat:amazon.nova-lite-v1:0", region="eu-west-1") == ("granted", "access granted")
    assert [region for _, region in bedrock["asked"]] == ["us-east-1", "eu-west-1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"authorizationStatus": "NOT_AUTHORIZED"}, "the account is not authorized for it"),
        ({"entitlementAvailability": "NOT_AVAILABLE"}, "the account has no access to it"),
        ({"regionAvailability": "NOT_AVAILABLE"}, "the Region does not serve it"),
        ({"agreementAvailability": {"status": "NOT_AVAILABLE"}}, "its agreement has not been accepted"),
    ],
)
def test_missing_access_is_said_with_its_reason(bedrock, ask, change, reason):
    bedrock[f"{AVAILABILITY}amazon.nova-lite-v1:0"] = (200, {**GRANTED, **change})
    state, detail = ask("bedrock/amazon.nova-lite-v1:0")
    assert state == "denied"
    assert reason in detail


def test_an_unknown_model_is_missing(bedrock, ask):
    assert ask("bedrock/acme.unknown")[0] == "missing"
    assert ask("bedrock/us.acme.unknown")[0] == "missing"
    assert ask(f"bedrock/{ARN}:provisioned-model/abcdefghijkl")[0] == "missing"


def test_without_permission_the_dry_run_says_which_call_was_refused(bedrock, ask):
    bedrock[f"{AVAILABILITY}amazon.nova-lite-v1:0"] = DENIED
    bedrock[f"{MODEL}amazon.nova-lite-v1:0"] = DENIED
    refused = "could not be asked: {}: AccessDeniedException"
    assert ask("bedrock/amazon.nova-lite-v1:0") == ("unknown", refused.format("GetFoundationModel"))
    bedrock[f"{MODEL}amazon.nova-lite-v1:0"] = (200, {"modelDetails": {}})
    exists = f"exists; access {refused.format('GetFoundationModelAvailability')}"
    assert ask("bedrock/amazon.nova-lite-v1:0") == ("unknown", exists)


def test_an_inference_profile_has_the_access_of_the_model_behind_it(bedrock, ask):
    behind = {"models": [{"modelArn": "arn:aws:bedrock:us-west-2::foundation-model/amazon.nova-lite-v1:0"}]}
    for profile in ("us.amazon.nova-lite-v1:0", f"{ARN}:application-inference-profile/abcdefghijkl"):
        bedrock[f"{PROFILE}{profile}"] = (200, {"status": "ACTIVE", **behind})
        bedrock[f"{AVAILABILITY}amazon.nova-lite-v1:0"] = (200, {**GRANTED, "regionAvailability": "NOT_AVAILABLE"})
        assert ask(f"bedrock/{profile}") == ("granted", "access granted")
        bedrock[f"{AVAILABILITY}amazon.nova-lite-v1:0"] = (200, {**GRANTED, "authorizationStatus": "NOT_AUTHORIZED"})
        assert ask(f"bedrock/{profile}")[0] == "denied"


@pytest.mark.parametrize(("status", "state"), [("InService", "granted"), ("Creating", "denied")])
def test_provisioned_throughput_must_be_in_service(bedrock, ask, status, state):
    arn = f"{ARN}:provisioned-model/abcdefghijkl"
    bedrock[f"/provisioned-model-throughput/{arn}"] = (200, {"status": status})
    assert ask(f"bedrock/{arn}")[0] == state


def test_a_mantle_model_and_an_unread_account_are_not_asked(bedrock, ask):
    assert ask("bedrock-mantle-chat:openai.gpt-oss-120b")[0] == "unknown"
    assert ask("bedrock/amazon.nova-lite-v1:0", unavailable="no Region") == ("unknown", "not asked: no Region")
    assert bedrock["asked"] == []


def test_an_unreachable_endpoint_is_said(ask, monkeypatch, credentials):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:1")
    state, detail = ask("bedrock/amazon.nova-lite-v1:0")
    assert state == "unknown"
    assert detail.startswith("could not be asked: Could not connect to the endpoint URL")


def test_models_elsewhere_are_not_asked(bedrock, make_project):
    assert fetch_access(load_project(make_project({"echo": ECHO})), "us-east-1", "") == []
