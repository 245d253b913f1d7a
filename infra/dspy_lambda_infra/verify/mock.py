"""A mock model behind a function URL, for `make verify-aws`: a Lambda function's source, so it imports nothing here."""

import json
import os
import re
import time

import boto3

SSM = boto3.client("ssm")


def handler(event, context):  # type: ignore[no-untyped-def]
    """Answer chat completions; "sleep N" in the prompt waits, "limit [until EPOCH]" refuses with Retry-After: 7."""
    # Read on each call because it is rotated.
    key = SSM.get_parameter(Name=os.environ["MOCK_KEY"], WithDecryption=True)["Parameter"]["Value"]
    if event["headers"].get("authorization") != "Bearer " + key:
        return {"statusCode": 401, "body": json.dumps({"error": {"message": "wrong key"}})}
    request = json.loads(event["body"])
    text = request["messages"][-1]["content"]
    if found := re.search(r"sleep (\d+)", text):
        time.sleep(int(found[1]))
    limit = re.search(r"limit(?: until (\d+))?", text)
    if limit and (limit[1] is None or time.time() < int(limit[1])):
        return {"statusCode": 429, "headers": {"retry-after": "7"}, "body": json.dumps({"error": {"message": "slow"}})}
    answer = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(
            {
                "id": "mock",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            }
        ),
    }
