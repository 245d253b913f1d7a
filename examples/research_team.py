"""`make research-team`: runs examples/research-team as Lambda functions on this machine, without account or key.

An embedded server replaces the models of OpenAI and of Bedrock, and answers each request after half a second. Exits
with 1 if anything is not as expected. Elapsed times are reported, not judged.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo import post, print_wrapped

from dspy_lambda_infra.local import sandbox
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.model_server import ModelServer
from dspy_lambda_infra.project import load_project

PROJECT = Path(__file__).parent / "research-team"
MODEL_SECONDS = 0.5
QUESTION = "Should we release on Fridays?"
# Each program's inputs, its rounds of model calls one after the other, and how many calls of one round run at once.
REQUESTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "ExpertPanel": ({"question": QUESTION}, 2, 6),
    "ParallelPipeline": ({"documents": [f"Document {n}." for n in range(1, 11)]}, 2, 10),
    "ResearchTeam": ({"question": QUESTION}, 4, 6),
    "QualityGate": ({"task": "Announce the release."}, 2, 1),
}


def main() -> int:
    """Call each program twice, and show the second call's time next to that of its model calls; then on Bedrock."""
    sandbox.loopback_only()
    lines: list[tuple[str, str]] = []
    problems: list[str] = []
    print(f"Each model call takes {MODEL_SECONDS} s. The second call of each program:")
    with ModelServer(samples=True) as models, tempfile.TemporaryDirectory() as folder:
        # Bedrock's requests are signed, and the model server refuses a wrong signature.
        variables = {"OPENAI_API_KEY": "embedded", "DSPY_LAMBDA_API_BASE": models.url, **models.aws_variables}
        on_bedrock = shutil.copytree(PROJECT, Path(folder) / "research-team")
        shutil.copy(PROJECT / "dspy.config.bedrock.yaml", on_bedrock / "dspy.config.yaml")
        for name, project in (("OpenAI", PROJECT), ("Amazon Bedrock", on_bedrock)):
            print(f"\nModels of {name}\n")
            local = LocalLambda(load_project(project), variables, lambda name, line: lines.append((name, line)))
            problems += asyncio.run(run(local, models))
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    for name, line in lines if problems else ():
        print(name, line, file=sys.stderr)
    return 1 if problems else 0


async def run(local: LocalLambda, models: ModelServer) -> list[str]:
    """Return what was not as expected."""
    problems = []
    print(f"{'program':<18}{'seconds':>9}{'one after another':>19}{'model calls':>13}{'at once':>9}", flush=True)
    async with local, local.front("rest", 0) as address:
        for program, (inputs, rounds, width) in REQUESTS.items():
            models.behave(samples=True)
            await asyncio.to_thread(post, f"{address}/{program}", inputs)
            models.behave(samples=True, delay_seconds=MODEL_SECONDS)
            # Other inputs than before: DSPy's cache answers the same ones.
            status, outputs, seconds = await asyncio.to_thread(post, f"{address}/{program}", changed(inputs))
            calls = models.stats()
            one_by_one = calls["requests"] * MODEL_SECONDS
            print(f"{program:<18}{seconds:>9.2f}{one_by_one:>19.1f}", end="")
            print(f"{calls['requests']:>13}{calls['peak_in_flight']:>9}", flush=True)
            print_wrapped(json.dumps(outputs), indent=2)
            if status != 200 or calls["peak_in_flight"] != width:
                problems.append(f"{program}: status {status}, {calls['peak_in_flight']} calls at once, not {width}")
            if calls["requests"] < rounds:
                problems.append(f"{program}: {calls['requests']} model calls, expected at least {rounds}")
    return problems


def changed(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with other texts."""
    return {
        name: [f"{each} Again." for each in value] if isinstance(value, list) else f"{value} Again."
        for name, value in inputs.items()
    }


if __name__ == "__main__":
    sys.exit(main())
