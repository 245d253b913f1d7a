"""Builds log lines as functions write them."""

import json

BASE = {
    "level": "INFO",
    "message": "program call",
    "timestamp": "2026-07-01T12:00:00.000Z",
    "service": "qa",
    "program": "Answer",
    "model": "default",
    "source": "rest",
    "function_request_id": "8f2b7a54-5f0e-4d55-9d53-0c7d5a4f7a11",
    "correlation_id": "c-1",
    "outcome": "success",
    "duration_ms": 100.0,
    "input_tokens": 10,
    "output_tokens": 2,
    "cost_usd": 0.001,
    "lm_calls": 1,
    "cache_hits": 0,
    "cold_start": False,
}
OTHERS = [
    b"START RequestId: 8f2b7a54 Version: $LATEST\n",
    b"REPORT RequestId: 8f2b7a54 Duration: 3 ms Billed\n",
    b'{"_aws":{"Timestamp":1,"CloudWatchMetrics":[]},"Calls":[1]}\n',
    b'{"level":"INFO","message":"environment ready"}\n',
    b'{"level":"INFO","message":"a program call of mine"}\n',
    b'{"message": ["program call"]}\n',
    b"[1, 2]\n",
    b"\xff\xfe\x00\x80 call binary\n",
    b"{" * 3000 + b' "call"\n',
]


def line(**fields):
    return json.dumps(BASE | fields).encode() + b"\n"
