"""SQS batches against the ideal, which is the model's own delay, in one process on one model server.

make bench
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from infra.model_server import ModelServer

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart"
DELAY_SECONDS = 0.5
RUNS = 7


class Context:
    """A Lambda context."""

    aws_request_id = "benchmark"

    def get_remaining_time_in_millis(self) -> int:
        """Plenty."""
        return 60_000


def batch(program: str, field: str, size: int) -> dict[str, Any]:
    """An SQS event of that many records."""
    bodies = (json.dumps({"program": program, "inputs": {field: f"record {n}"}}) for n in range(size))
    return {"Records": [{"messageId": str(n), "eventSource": "aws:sqs", "body": body} for n, body in enumerate(bodies)]}


def main() -> None:
    """Print each program's batch time, and its ratio to the ideal."""
    with ModelServer() as models:
        os.environ |= {
            "DSPY_LAMBDA_PROJECT": str(QUICKSTART),
            "DSPY_LAMBDA_API_BASE": models.url,
            "OPENAI_API_KEY": "embedded",
        }
        output, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
        from handler.main import lambda_handler

        print("program     records  first s  median s   max s  median/ideal  connections", file=output)
        for program, field in (("Summarise", "text"), ("Answer", "question")):
            for size in (1, 10, 100):
                models.behave(delay_seconds=DELAY_SECONDS)
                seconds = []
                for _ in range(RUNS + 1):
                    begin = time.perf_counter()
                    answer = lambda_handler(batch(program, field, size), Context())
                    seconds.append(time.perf_counter() - begin)
                    assert answer == {"batchItemFailures": []}, answer
                first, *warm = seconds
                median = statistics.median(warm)
                connections = models.stats()["connections"]
                print(
                    f"{program:<12}{size:>7}{first:>9.3f}{median:>10.3f}{max(warm):>8.3f}"
                    f"{median / DELAY_SECONDS:>14.2f}{connections:>13}",
                    file=output,
                    flush=True,
                )


if __name__ == "__main__":
    main()
