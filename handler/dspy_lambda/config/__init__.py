"""The parts of `dspy.config.yaml` that the handler uses; the infra package reads those that describe the cloud."""

from dspy_lambda.config.file import CONFIG_FILE, load_config
from dspy_lambda.config.schema import Config, FunctionSettings, ModelSettings, Server, Sqs

__all__ = ["CONFIG_FILE", "Config", "FunctionSettings", "ModelSettings", "Server", "Sqs", "load_config"]
