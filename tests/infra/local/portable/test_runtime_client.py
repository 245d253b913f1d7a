"""The runtime client for machines where AWS's native module cannot be installed."""

import asyncio
import json
from pathlib import Path

from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.support import AECHO

WHERE = """
class Where(dspy.Module):
    async def aforward(self) -> str:
        import runtime_client
        return runtime_client.__file__
"""


def test_the_portable_runtime_client_behaves_like_the_native_one(make_project, models, tmp_path, monkeypatch):
    from dspy_lambda_infra.local import environment

    folder = str(Path(environment.__file__).parent / "portable")
    monkeypatch.setattr(environment, "_python_path", lambda: {"PYTHONPATH": folder})
    source = AECHO + WHERE
    project = make_project({"aecho": source})

    async def run():
        local = LocalLambda(load_project(project), {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url})
        async with local:
            function = local.function(CATALOGUE)
            events = [
                {"program": "Where", "inputs": {}},
                {"program": "AEcho", "inputs": {"question": "ü😀"}},
                {"program": "AEcho", "inputs": {}},
                {"program": "AEcho", "inputs": {"question": "again"}},
            ]
            return [json.loads((await function.invoke(json.dumps(event).encode())).payload) for event in events]

    where, unicode, error, again = asyncio.run(run())
    assert where["outputs"]["result"].startswith(folder)
    assert unicode["outputs"]["answer"] == "gpt-4.1-nano: ü😀"
    assert error["errorType"] == "InvalidInput"
    assert again["outputs"]["answer"] == "gpt-4.1-nano: again"
