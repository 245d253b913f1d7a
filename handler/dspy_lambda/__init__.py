"""What runs inside Lambda. Nothing here knows SAM, and nothing here imports `dspy_lambda_infra`."""

__version__ = "0.1.0"
