"""A mock model server for demos, tests and benchmarks: answers any DSPy program in the providers' wire formats.

Every text answer is `<model>: <first input>`, which exposes misrouted calls; with `samples`, it suits the field's
name. The server listens on loopback by default.

    with ModelServer(delay_seconds=0.5) as server:
        dspy.LM("openai/any-name", api_base=server.url, api_key="none")

Bedrock's paths verify signatures. `aws_variables` has what signs for them:

    with ModelServer(models={"amazon.nova-lite-v1:0": {"failures": ["ThrottlingException", None]}}) as server:
        boto3.client("bedrock-runtime", endpoint_url=server.address, aws_access_key_id="local", ...)
"""

from __future__ import annotations

from dspy_lambda_infra.model_server.app import ModelApp
from dspy_lambda_infra.model_server.behavior import Behavior, Credentials
from dspy_lambda_infra.model_server.completions import completion, count_tokens
from dspy_lambda_infra.model_server.counts import Counts
from dspy_lambda_infra.model_server.server import ModelServer, serve

__all__ = ["Behavior", "Counts", "Credentials", "ModelApp", "ModelServer", "completion", "count_tokens", "serve"]
