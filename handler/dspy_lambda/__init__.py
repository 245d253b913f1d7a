"""What runs inside Lambda. Nothing here knows SAM, and nothing here imports `dspy_lambda_infra`."""
