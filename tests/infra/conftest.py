import asyncio
import threading

import boto3
import pytest
from moto import mock_aws

from dspy_lambda_infra.local.observer import Observer
from dspy_lambda_infra.observed import publish

GROUPS = ["/groups/a", "/groups/b"]


@pytest.fixture
def credentials(monkeypatch):
    """Credentials with which moto accepts requests, whatever the developer's are."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


@pytest.fixture
def observer(tmp_path, monkeypatch):
    """A running observer of the project in `tmp_path`, and the loop that it runs on, in another thread."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start():
        found = Observer(tmp_path)
        return found, await found.start()

    found, address = asyncio.run_coroutine_threadsafe(start(), loop).result()
    with publish(tmp_path, address):
        yield found, loop
    asyncio.run_coroutine_threadsafe(found.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def log_groups():
    """A client of CloudWatch Logs, emulated by moto, with GROUPS, each with a stream `s`."""
    with mock_aws():
        client = boto3.client("logs", region_name="us-east-1")
        for group in (*GROUPS, "aws/spans"):
            client.create_log_group(logGroupName=group)
            client.create_log_stream(logGroupName=group, logStreamName="s")
        yield client
