"""`make verify-aws` as far as it goes without an account: its checks on the local Lambda, its cleaning up in moto."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto import mock_aws

from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.verify import __main__ as verify
from dspy_lambda_infra.verify import checks
from dspy_lambda_infra.verify.project import write_project


@pytest.fixture
def credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def mock(credentials, monkeypatch):
    """The mock function behind HTTP, as its function URL would be; its address."""
    monkeypatch.setenv("MOCK_KEY", "/key")
    with mock_aws():
        boto3.client("ssm").put_parameter(Name="/key", Type="SecureString", Value="the key")
        from dspy_lambda_infra.verify.mock import handler

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = handler({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}, None)
            self.send_response(answer["statusCode"])
            for name, value in answer.get("headers", {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_the_checks_hold_on_the_local_lambda(mock, tmp_path, monkeypatch):
    """All but those of authorisation, metrics and alarms, which the local Lambda has none of."""
    project = load_project(write_project(tmp_path / "project", "verify"))
    variables = {"DSPY_LAMBDA_API_BASE": mock, "MOCK_KEY": "the key"}
    local_checks = (
        checks.a_call_is_answered,
        checks.the_shared_routes_answer,
        checks.an_unknown_path_is_404,
        checks.errors_are_readable,
        checks.a_provider_limit_reaches_the_caller,
        checks.a_throttle_is_503,
        checks.a_bad_record_leaves_its_batch,
        checks.a_used_up_process_is_replaced,
    )

    async def run():
        async with (
            LocalLambda(project, variables) as local,
            local.mappings(30) as server,
            local.front("rest", 0) as url,
        ):
            monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.address)
            queue = local.queues["Answer"]
            outputs = {"ApiUrl": url, "AnswerQueueUrl": queue.url, "AnswerDeadLetterQueueUrl": queue.dead_letter_url}
            stack = checks.Stack(boto3.Session(), "verify", outputs)
            return {check.__name__: await asyncio.to_thread(check, stack) for check in local_checks}

    seen = asyncio.run(run())
    assert {name: holds for name, (holds, _) in seen.items()} == dict.fromkeys(seen, True), seen


def test_a_check_that_breaks_does_not_hold(monkeypatch):
    def broken(stack):
        """Something."""
        raise OSError("no route")

    monkeypatch.setattr(checks, "CHECKS", (broken,))
    assert list(checks.run_checks(None)) == [("Something.", False, "OSError: no route")]


@pytest.fixture
def account(credentials, monkeypatch):
    limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
    monkeypatch.setattr("dspy_lambda_infra.deploy.account.account_limits", lambda session: limits)
    with mock_aws():
        yield boto3.client


def test_everything_is_deleted_after_a_failure_too(account, monkeypatch):
    """The deployment makes a stack with a queue that it keeps, and breaks off."""
    real = verify.dspy_lambda

    def deploy(arguments):
        name = arguments[arguments.index("--stack-name") + 1]
        queue = {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain", "Properties": {}}
        body = json.dumps({"Resources": {"AnswerQueue": queue}})
        account("cloudformation").create_stack(StackName=name, TemplateBody=body)
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "dspy_lambda", deploy)
    with pytest.raises(KeyboardInterrupt):
        verify.main([])
    monkeypatch.setattr(verify, "dspy_lambda", real)
    assert account("cloudformation").describe_stacks()["Stacks"] == []
    assert account("sqs").list_queues().get("QueueUrls", []) == []
    assert account("ssm").describe_parameters()["Parameters"] == []


def test_a_failed_deployment_is_a_failed_verification(account, monkeypatch):
    monkeypatch.setattr(verify, "dspy_lambda", lambda arguments: 1)
    assert verify.main([]) == 1
    assert account("ssm").describe_parameters()["Parameters"] == []


def test_a_dry_run_says_what_it_would_do_and_makes_nothing(account, capsys):
    assert verify.main(["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "AWS::Lambda::Function" in said
    assert "The disputed one" in said
    assert account("ssm").describe_parameters()["Parameters"] == []
    assert account("cloudformation").describe_stacks()["Stacks"] == []
