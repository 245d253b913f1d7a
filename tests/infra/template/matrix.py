"""The configs that every tool checks: all kinds of API and auth, with and without queues, schedules, and the rest."""

from __future__ import annotations

from typing import Any

_POOL = "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_abcdefghi"
_KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
_LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:aws-otel-python:1"
_EXTENSION = "arn:aws:lambda:us-east-1:123456789012:layer:AWS-Parameters-and-Secrets-Lambda-Extension:12"
_QUEUE = {"batch_size": 20, "window_seconds": 3, "maximum_concurrency": 4, "invalid_to_dead_letter_queue": True}
_JWT = {"issuer": "https://issuer.example.com/", "audience": ["app"]}

# name -> (the config's `lambda` section, and its `server` section)
MATRIX: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rest-iam": ({"defaults": {"sqs": _QUEUE}}, {}),
    "rest-api-key": ({"api": {"auth": "api_key", "requests_per_day": 5000}}, {"cors_origins": ["https://a.example"]}),
    "rest-jwt": (
        {"api": {"auth": "jwt", "user_pool_arn": _POOL}},
        {"cors_origins": ["https://a.example", "https://b.example"]},
    ),
    "rest-open": ({"api": {"auth": "none"}, "runtime": "python3.11", "alarms": False}, {}),
    "http-iam": ({"api": {"kind": "http"}, "defaults": {"sqs": {"fifo": True}}}, {}),
    "http-jwt": ({"api": {"kind": "http", "auth": "jwt", **_JWT}}, {"cors_origins": ["https://a.example"]}),
    "url-iam": ({"api": {"kind": "url"}, "runtime": "python3.12"}, {"cors_origins": ["https://a.example"]}),
    "url-open": ({"api": {"kind": "url", "auth": "none"}}, {}),
    "queue-only": ({"defaults": {"http": False, "sqs": _QUEUE, "reserved_concurrency": None}}, {}),
    "schedule": (
        {"defaults": {"schedule": {"expression": "rate(1 hour)", "inputs": {"question": "q"}}, "http": False}},
        {},
    ),
    "gradual": (
        {
            "defaults": {
                "sqs": {},
                "schedule": {"expression": "rate(1 hour)"},
                "deployment": {"type": "Linear10PercentEvery1Minute"},
            }
        },
        {},
    ),
    "url-gradual": ({"api": {"kind": "url"}, "alarms": False, "defaults": {"deployment": {}, "snap_start": True}}, {}),
    "image": ({"package_type": "Image", "architecture": "arm64", "defaults": {"sqs": _QUEUE}}, {}),
    "everything": (
        {
            "tracing": "otel",
            "layers": [_LAYER, _EXTENSION],
            "kms_key_arn": _KEY,
            "secrets_kms_key_arns": [_KEY.replace("1", "2")],
            "permissions_boundary_arn": "arn:aws:iam::123456789012:policy/boundary",
            "vpc": {"subnet_ids": ["subnet-1234abcd"], "security_group_ids": ["sg-1234abcd"]},
            "secrets": {"OPENAI_API_KEY": "secretsmanager:app/{stage}/openai#key", "OTHER": "ssm:/app/other"},
            "log_retention_days": 365,
            "defaults": {
                "sqs": _QUEUE,
                "snap_start": True,
                "secrets": ["OTHER"],
                "architecture": "arm64",
                "daily_tokens": 9,
            },
        },
        {},
    ),
    "traces": ({"defaults": {"sqs": {}, "telemetry": {"traces": "cloudwatch", "sample": 1, "payloads": "sizes"}}}, {}),
    "collector": (
        {"defaults": {"telemetry": {"traces": "https://collector.example:4318", "headers_env": "OTLP_HEADERS"}}},
        {},
    ),
    "xray": ({"tracing": "xray", "defaults": {"ephemeral_storage_mb": 2048}}, {}),
}

# A registry with each kind of model that Bedrock has, all used by one program.
_ACCOUNT = "arn:aws:bedrock:us-east-1:123456789012"
BEDROCK_MODELS: dict[str, dict[str, Any]] = {
    "nova": {"model": "bedrock/amazon.nova-lite-v1:0", "guardrail": {"id": "abc123", "version": 1}},
    "profile": {"model": "bedrock/eu.amazon.nova-pro-v1:0", "region": "eu-west-1"},
    "global": {"model": "bedrock/global.anthropic.claude-haiku-4-5-20251001-v1:0"},
    "application": {"model": f"bedrock/{_ACCOUNT}:application-inference-profile/abcdefghijkl"},
    "provisioned": {"model": f"bedrock/{_ACCOUNT}:provisioned-model/abcdefghijkl"},
    "router": {"model": f"bedrock/{_ACCOUNT}:default-prompt-router/anthropic.claude:1"},
    "chat": {"model": "bedrock-chat:openai.gpt-oss-120b-1:0", "region": "us-west-2"},
    "mantle": {"model": "bedrock-mantle-chat:openai.gpt-oss-120b"},
    "claude": {"model": "bedrock-anthropic:anthropic.claude-haiku-4-5", "env": "AWS_BEARER_TOKEN_BEDROCK"},
}
BEDROCK: dict[str, Any] = {
    "default": "nova",
    "registry": {
        **BEDROCK_MODELS,
        "nova": {
            **BEDROCK_MODELS["nova"],
            "fallback": [alias for alias in BEDROCK_MODELS if alias != "nova"],
            "fallback_on": ["outage"],  # what a guardrail stops must not go to a model without one
        },
    },
}
