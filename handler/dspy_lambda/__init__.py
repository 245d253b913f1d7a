"""The package that runs inside Lambda. It does not depend on SAM and never imports `dspy_lambda_infra`."""

__version__ = "0.1.0"
