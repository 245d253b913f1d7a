"""The project that is verified: one program, a queue, and the mock as one more function of the stack."""

from __future__ import annotations

from pathlib import Path

import yaml

from dspy_lambda_infra.template.syntax import dump, get_att, ref, sub

PROGRAM = "Answer"
_MODULE = '''\
import os
import threading
import time

import dspy


class Answer(dspy.Module):
    """Answer a question, or do what ends or stops an environment."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if question == "exit":
            os._exit(1)
        if question == "block":
            time.sleep(60)
        if question == "use up threads":
            for _ in range(800):
                threading.Thread(target=time.sleep, args=(900,), daemon=True).start()
        if question == "how often replaced":
            return dspy.Prediction(answer=os.environ.get("DSPY_LAMBDA_RESTARTS", "0"))
        return await self.answer.acall(question=question)
'''


def write_project(folder: Path, app_id: str) -> Path:
    """Write it into an empty folder; the same folder."""
    module = folder / "src" / "verify" / "modules" / "answer.py"
    module.parent.mkdir(parents=True)
    module.write_text(_MODULE, encoding="utf-8")
    (folder / "src" / "verify" / "__init__.py").touch()
    model = {"model": "openai/mock", "env": "MOCK_KEY", "cache": False}
    config = {
        "app_id": app_id,
        "models": {"default": "mock", "registry": {"mock": model}},
        "lambda": {
            "log_retention_days": 1,
            # One environment at a time, so that a second request at once is a throttle.
            "programs": {
                PROGRAM: {
                    "memory_mb": 512,
                    "timeout_seconds": 20,
                    "reserved_concurrency": 2,
                    "sqs": {"maximum_concurrency": 2, "invalid_to_dead_letter_queue": True, "max_receive_count": 5},
                }
            },
        },
    }
    (folder / "dspy.config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "template.extra.yaml").write_text(dump(_extra(f"/{app_id}/prod/MOCK_KEY")), encoding="utf-8")
    return folder


def _extra(key: str) -> dict[str, object]:
    code = Path(__file__).with_name("mock.py").read_text(encoding="utf-8")
    arn = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter"
    mock = {
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "InlineCode": code,
        "Timeout": 60,
        # An LM sends a bearer token and no signature: the mock checks that token itself, and lives for minutes.
        "FunctionUrlConfig": {"AuthType": "NONE"},
        "LoggingConfig": {"LogGroup": ref("MockLogGroup")},
        "Environment": {"Variables": {"MOCK_KEY": key}},
        "Policies": [{"Statement": [{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": sub(arn + key)}]}],
    }
    base = {"Variables": {"DSPY_LAMBDA_API_BASE": sub("${MockFunctionUrl.FunctionUrl}v1")}}
    return {
        "Resources": {
            "MockFunction": {"Type": "AWS::Serverless::Function", "Properties": mock},
            "MockLogGroup": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 1}},
            f"{PROGRAM}Function": {"Properties": {"Environment": base}},
        },
        "Outputs": {"MockUrl": {"Value": get_att("MockFunctionUrl.FunctionUrl")}},
    }
