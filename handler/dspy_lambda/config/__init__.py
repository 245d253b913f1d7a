"""`dspy.config.yaml` as the handler reads it: what runs. What only describes the cloud is left to the infra package."""

from dspy_lambda.config.file import CONFIG_FILE, load_config
from dspy_lambda.config.schema import Config, FunctionSettings, ModelSettings, Server, Sqs

__all__ = ["CONFIG_FILE", "Config", "FunctionSettings", "ModelSettings", "Server", "Sqs", "load_config"]
