"""Queues on moto's SQS server."""

from __future__ import annotations

import json
import logging
import urllib.request
from threading import Thread
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config as ClientConfig
from botocore.session import Session as BotocoreSession
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local import moto_patches
from dspy_lambda_infra.local.access import refuse_pages
from dspy_lambda_infra.template.queues import DLQ_RETENTION_SECONDS

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REGION = "us-east-1"


class QueueServer:
    """moto's SQS server on a free loopback port, and a client for it.

    Attributes:
        unordered: why FIFO queues do not keep their order here, or None.
    """

    def start(self) -> None:
        """Start the server."""
        self.unordered = moto_patches.patch_fifo_order()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise one line per request
        app = refuse_pages(DomainDispatcherApplication(create_backend_app))
        # Like ThreadedMotoServer, which cannot wrap its application.
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        # moto keeps its state per process, not per server.
        reset = urllib.request.Request(f"{self.address}/moto-api/reset", b"", {"Authorization": "local"})
        urllib.request.urlopen(reset, timeout=10).close()
        # Without the developer's profile, which may not even exist.
        session = boto3.Session(botocore_session=BotocoreSession({"profile": (None, None, None, None)}))
        self.client: SQSClient = session.client(
            "sqs",
            region_name=REGION,
            endpoint_url=self.address,
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - moto checks none
            config=ClientConfig(max_pool_connections=50, retries={"max_attempts": 1}),
        )

    def stop(self) -> None:
        """Stop the server; the content of its queues is lost."""
        self._server.shutdown()
        self._server.server_close()


class Queue:
    """A program's queue and dead-letter queue, created as the template does."""

    def __init__(self, client: SQSClient, name: str, settings: Sqs, visibility_seconds: int) -> None:
        suffix = ".fifo" if settings.fifo else ""
        fifo: Any = {"FifoQueue": "true"} if settings.fifo else {}
        self.name = f"{name}Queue{suffix}"
        self.dead_letter_url = client.create_queue(
            QueueName=f"{name}DeadLetterQueue{suffix}",
            Attributes={**fifo, "MessageRetentionPeriod": str(DLQ_RETENTION_SECONDS)},
        )["QueueUrl"]
        dead = client.get_queue_attributes(QueueUrl=self.dead_letter_url, AttributeNames=["QueueArn"])
        redrive = {
            "deadLetterTargetArn": dead["Attributes"]["QueueArn"],
            "maxReceiveCount": settings.max_receive_count,
        }
        self.url = client.create_queue(
            QueueName=self.name,
            Attributes={
                **fifo,
                **({"ContentBasedDeduplication": "true"} if settings.fifo else {}),
                "VisibilityTimeout": str(visibility_seconds),
                "RedrivePolicy": json.dumps(redrive),
            },
        )["QueueUrl"]
