"""Four programs with fan-outs: spans, log records, metrics and the model server agree on tokens, calls and attempts."""

import gzip
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.stress.conftest import SCALE
from tests.support import sqs, wait_until

PROGRAM = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from dspy_lambda.patterns import fan_out

class {name}(dspy.Module):
    def __init__(self):
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")
        self.first = dspy.Predict("question -> answer")
        self.second = dspy.Predict("question -> answer")

    {body}
"""
BODIES = {
    "Gathers": """
    async def aforward(self, question: str):
        found = await asyncio.gather(*(one.acall(question=question) for one in (self.think, self.first, self.second)))
        return {"answer": [one.answer for one in found]}
""",
    "FansOut": """
    async def aforward(self, question: str):
        found = await fan_out([self.think, self.first, self.second], question=question)
        return {"answer": len(found.require(1).answers)}
""",
    "Parallels": """
    def forward(self, question: str):
        example = dspy.Example(question=question).with_inputs("question")
        found = dspy.Parallel(num_threads=3)([(one, example) for one in (self.think, self.first, self.second)])
        return {"answer": [one.answer for one in found if one]}
""",
    "Threads": """
    def forward(self, question: str):
        lm = dspy.settings.lm
        with ThreadPoolExecutor(2) as pool:
            texts = pool.map(lm, [question, question])
            answer = self.think(question=question).answer
        return {"answer": [answer, *map(str, texts)]}
""",
}
CHEAP = {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False, "fallback": ["strong"]}
STRONG = {"model": "openai/gpt-4.1-mini", "env": "OPENAI_API_KEY", "cache": False}
KINDS = ("input", "output")


@pytest.fixture
def spans():
    """An OTLP collector; returns its address, and the list of spans that came."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            document = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
            got.extend(s for r in document["resourceSpans"] for scope in r["scopeSpans"] for s in scope["spans"])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


@pytest.fixture
def serve(make_project, make_serve, spans):
    modules = {
        name.lower(): PROGRAM.replace("{name}", name).replace("{body}", body.strip()) for name, body in BODIES.items()
    }
    models = {"default": "cheap", "registry": {"cheap": CHEAP, "strong": STRONG}}
    serve = make_serve(make_project(modules, models=models), DSPY_LAMBDA_TRACES=spans[0])
    for lm in serve.environment.models.values():
        lm.num_retries = 1
    return serve


def attributes(span):
    """Return a span's attributes as plain values."""
    values = {entry["key"]: entry["value"] for entry in span["attributes"]}
    return {
        name: int(value["intValue"]) if "intValue" in value else next(iter(value.values()))
        for name, value in values.items()
    }


class Tree:
    """The spans, with the attributes of each and the program call that it is part of."""

    def __init__(self, spans):
        self.by_id = {(span["traceId"], span["spanId"]): span for span in spans}
        self.about = {key: attributes(span) for key, span in self.by_id.items()}
        self.model_calls = [key for key in self.by_id if self.of(key, "gen_ai.operation.name") == "chat"]
        self.program_calls = [key for key in self.by_id if self.of(key, "gen_ai.operation.name") == "invoke_workflow"]

    def of(self, key, name, default=None):
        return self.about[key].get(name, default)

    def message_id(self, key):
        """Return the message id of the program call that a span is part of; None if it is part of none."""
        while key in self.by_id:
            if self.of(key, "gen_ai.operation.name") == "invoke_workflow":
                return self.of(key, "dspy_lambda.message_id")
            key = key[0], self.by_id[key].get("parentSpanId")
        return None


def test_spans_records_metrics_and_the_model_server_have_equal_sums(serve, spans, models, records, report):
    faults = {"rate_limit_rate": 0.1, "error_rate": 0.05, "retry_after_seconds": 3600}
    models.behave(models={"gpt-4.1-nano": faults, "gpt-4.1-mini": {"malformed_rate": 0.05}}, seed=3)
    count, calls, blobs = 100 * SCALE, [], []
    for start in range(0, count, 100):
        size = min(100, count - start)
        bodies = [{"program": list(BODIES)[n % 4], "inputs": {"question": "why " * (1 + n % 40)}} for n in range(size)]
        batch = sqs(*bodies)
        for position, record in enumerate(batch["Records"]):
            record["messageId"] = f"m{start + position}"
        serve(batch)
        logged = records()
        calls += logged.calls
        blobs.append(logged)
    seen, got = models.stats(), spans[1]
    assert len(calls) == count
    wait_until(lambda: sum("invoke_workflow" in json.dumps(span) for span in list(got)) == count)
    tree = Tree(got)
    served = {kind: seen[name] for kind, name in zip(KINDS, ("prompt_tokens", "completion_tokens"), strict=True)}
    for kind in KINDS:
        attribute = f"gen_ai.usage.{kind}_tokens"
        by_message = Counter()
        for key in tree.model_calls:
            by_message[tree.message_id(key)] += tree.of(key, attribute, 0)
        assert by_message == {call["message_id"]: call[f"{kind}_tokens"] for call in calls}
        assert by_message.total() == served[kind] > 0
        assert sum(tree.of(key, f"dspy_lambda.{kind}_tokens") for key in tree.program_calls) == served[kind]
        assert sum(sum(logged.values(f"{kind.capitalize()}Tokens")) for logged in blobs) == served[kind]
    fallbacks = sum(tree.of(key, "dspy_lambda.fallback_from") is not None for key in tree.model_calls)
    assert fallbacks == sum(sum(logged.values("Fallbacks")) for logged in blobs) > 0
    attempts = [tree.of(key, "dspy_lambda.attempts") for key in tree.model_calls]
    assert sum(attempts) == seen["requests"]
    assert max(attempts) == 2
    outcomes = Counter(call["outcome"] for call in calls)
    report(count, outcomes["success"], count - outcomes["success"], spans=len(got), fallbacks=fallbacks)
