"""The project that a scenario deploys: small programs, and a mock model as another function in the stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dspy_lambda_infra.template.syntax import dump, get_att, ref, sub

PROGRAM, ORDERED, SCHEDULED = "Answer", "Ordered", "Scheduled"
_MODULE = '''\
import os
import threading
import time

import dspy


class Answer(dspy.Module):
    """Answer a question, or do something that ends or blocks an environment."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if question == "exit":
            os._exit(1)
        if question == "raise":
            raise RuntimeError("as asked")
        if question == "no model":
            return dspy.Prediction(answer="none asked")
        if question == "block":
            time.sleep(60)
        if question == "use up threads":
            for _ in range(800):
                threading.Thread(target=time.sleep, args=(900,), daemon=True).start()
        if question == "how often replaced":
            return dspy.Prediction(answer=os.environ.get("DSPY_LAMBDA_RESTARTS", "0"))
        return await self.answer.acall(question=question)
'''
_MORE = '''

class {name}(Answer):
    """The same, with other settings."""
'''
# A separate stack name and bucket prefix, so that everything can be deleted.
_SAMCONFIG = """\
version = 0.1

[default.build.parameters]
build_in_source = true
parallel = true

[default.deploy.parameters]
capabilities = "CAPABILITY_IAM"
resolve_s3 = true
resolve_image_repos = true
s3_prefix = "{prefix}"
"""


def key_parameter(app_id: str) -> str:
    """Return the SSM parameter with the key of the project's model."""
    return f"/{app_id}/prod/MOCK_KEY"


def write_project(
    folder: Path, app_id: str, settings: dict[str, Any], server: dict[str, Any], *, has_model: bool = True
) -> Path:
    """Write the project into an empty folder and return the folder.

    Args:
        settings: the config's `lambda` section; the programs that it names are created in addition to PROGRAM.
        server: the config's `server` section.
        has_model: whether the stack has the mock model; without it, no program may call a model.
    """
    package = folder / "src" / re.sub(r"\W", "_", app_id)  # distinct, as one process may load several projects
    module = package / "modules" / "answer.py"
    module.parent.mkdir(parents=True)
    more = [name for name in settings["programs"] if name != PROGRAM]
    module.write_text(_MODULE + "".join(_MORE.format(name=name) for name in more), encoding="utf-8")
    (package / "__init__.py").touch()
    nowhere = {"api_key": "none", "api_base": "http://127.0.0.1:9/v1"}
    model = {"model": "openai/mock", "cache": False, **({"env": "MOCK_KEY"} if has_model else nowhere)}
    config = {
        "app_id": app_id,
        "models": {"default": "mock", "registry": {"mock": model}},
        "server": server,
        "lambda": settings,
    }
    (folder / "dspy.config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "samconfig.toml").write_text(_SAMCONFIG.format(prefix=app_id), encoding="utf-8")
    if has_model:
        extra = _extra(key_parameter(app_id), [PROGRAM, *more])
        (folder / "template.extra.yaml").write_text(dump(extra), encoding="utf-8")
    return folder


def _extra(key: str, programs: list[str]) -> dict[str, Any]:
    code = Path(__file__).with_name("mock.py").read_text(encoding="utf-8")
    arn = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter"
    mock = {
        "PackageType": "Zip",
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "InlineCode": code,
        "Timeout": 60,
        # An LM sends a bearer token and no signature: the mock checks the token itself, and exists only for minutes.
        "FunctionUrlConfig": {"AuthType": "NONE"},
        "LoggingConfig": {"LogGroup": ref("MockLogGroup")},
        "Environment": {"Variables": {"MOCK_KEY": key}},
        "Policies": [{"Statement": [{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": sub(arn + key)}]}],
    }
    base = {"Environment": {"Variables": {"DSPY_LAMBDA_API_BASE": sub("${MockFunctionUrl.FunctionUrl}v1")}}}
    return {
        "Resources": {
            "MockFunction": {"Type": "AWS::Serverless::Function", "Properties": mock},
            "MockLogGroup": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 1}},
            **{f"{program}Function": {"Properties": base} for program in programs},
        },
        "Outputs": {"MockUrl": {"Value": get_att("MockFunctionUrl.FunctionUrl")}},
    }
