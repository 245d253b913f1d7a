"""Every module of DSPy, called through every source. Fails if DSPy exports a module without a row here."""

import io
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_lambda.environment import Environment
from dspy_lambda.errors import DeadlineExceeded
from tests.support import Context, Serve, failures, sqs

PROJECT = Path(__file__).parent / "every_module"
ANSWER = "gpt-4.1-nano: sky"
OWN_ANSWER = "of-its-own: sky"
THREE = [f"{ANSWER} {n}" for n in range(3)]


@dataclass(frozen=True)
class Row:
    """One program of the project, named after the modules that it uses.

    Attributes:
        covers: the names exported by DSPy that this program calls.
        lm_calls: the LM calls in its log record.
        outputs: a subset of its outputs.
    """

    program: str
    covers: set[str]
    lm_calls: int
    outputs: dict[str, Any] = field(default_factory=lambda: {"answer": ANSWER})


# They need Deno, which is not in the tests' environment, as in a function that did not ask for "dspy[deno]".
NOT_HERE = {f"Uses{kind}WithoutInterpreter" for kind in ("ProgramOfThought", "CodeAct", "RLM", "Flex")}
ROWS = [
    Row("UsesPredict", {"Predict"}, 1),
    Row("UsesPredictOnLoop", {"Predict"}, 1),
    Row("UsesChainOfThought", {"ChainOfThought"}, 1),
    Row("UsesReAct", {"ReAct", "Tool"}, 3),
    Row("UsesReActOnLoop", {"ReAct", "Tool"}, 3),
    Row("UsesReActV2", {"ReActV2"}, 1),
    Row("UsesRefine", {"Refine"}, 5),  # three attempts, and advice between them
    Row("UsesBestOfN", {"BestOfN"}, 3),
    Row("UsesBestOfNInRefine", {"BestOfN", "Refine"}, 2),
    Row("UsesParallel", {"Parallel"}, 3, {"answer": THREE}),
    Row("UsesBatch", set(), 3, {"answer": THREE}),
    Row("UsesMultiChainComparison", {"MultiChainComparison"}, 3),
    Row("UsesProgramOfThought", {"ProgramOfThought"}, 2),
    Row("UsesCodeAct", {"CodeAct"}, 2),
    Row("UsesRLM", {"RLM"}, 1, {"answer": "computed"}),
    Row("UsesRLMOnLoop", {"RLM"}, 1, {"answer": "computed"}),
    Row("UsesFlex", {"Flex"}, 1),
    Row("UsesKNN", {"KNN"}, 1, {"nearest": "sky", "answer": ANSWER}),
    Row("UsesMajority", {"majority"}, 1),
    Row("UsesStreamify", {"streamify"}, 1, {"streamed": ANSWER, "answer": ANSWER, "in_chunks": True}),
    Row("UsesStreamifyInThread", {"streamify"}, 1),
    Row("UsesAsyncify", {"asyncify"}, 1),
    Row("UsesSyncify", {"syncify"}, 1),
    Row("UsesEmbedder", {"Embedder"}, 0, {"result": [1.0, 0.0, 1.0]}),
    Row("UsesEmbedderOnLoop", {"Embedder"}, 0, {"result": [1.0, 0.0, 1.0]}),
    Row("UsesEmbeddings", {"Embeddings"}, 0, {"passages": ["the sky"], "indices": [0]}),
    Row("UsesEmbeddingsWithScores", {"EmbeddingsWithScores"}, 0, {"passages": ["the sky"], "indices": [0]}),
    Row("UsesRetrieve", {"Retrieve"}, 0, {"passages": ["passage 0 on sky", "passage 1 on sky"]}),
    Row("SetsLM", set(), 1, {"answer": OWN_ANSWER}),
    Row("SetsLMInRefine", {"Refine"}, 1, {"answer": OWN_ANSWER}),
    Row("UsesContext", set(), 1),
    Row("IsCompiled", set(), 1, {"answer": ANSWER, "demos": 1, "as": "Answer as a sailor."}),
    Row("Nests", {"BestOfN", "Parallel"}, 6, {"fan": THREE, "best": ANSWER, "rows": [{"name": ANSWER, "size": 42}]}),
]


@pytest.fixture(scope="module")
def output():
    return io.StringIO()


@pytest.fixture(scope="module")
def serve(_model_server, output):
    """One environment for all rows, as one handler that serves all programs."""
    _model_server.behave()
    settings = {"DSPY_LAMBDA_PROJECT": str(PROJECT), "DSPY_LAMBDA_API_BASE": _model_server.url, "OPENAI_API_KEY": "k"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERY_MODULE_API_BASE", _model_server.url)
        served = Serve(Environment(settings, output))
    yield served
    served.close()


def test_every_module_that_dspy_exports_is_tested(serve):
    modules = {name for name, kind in vars(dspy).items() if isinstance(kind, type) and issubclass(kind, dspy.Module)}
    modules |= {*dspy.predict.__all__, *dspy.retrievers.__all__, "Embedder", "asyncify", "streamify", "syncify"}
    assert set().union(*(row.covers for row in ROWS)) == modules - {"Module"}
    assert serve.environment.failed.keys() == NOT_HERE
    assert sorted(serve.environment.programs) == sorted(row.program for row in ROWS)


@pytest.mark.parametrize("program", sorted(NOT_HERE))
def test_a_module_without_its_interpreter_is_refused_before_any_call(serve, records, program):
    assert "dspy[deno]" in serve.environment.failed[program].error
    assert serve.post(f"/{program}", {"question": "sky"}).status == 503


def call_direct(serve, program):
    return serve({"program": program, "inputs": {"question": "sky"}})["outputs"]


def call_http(serve, program):
    answer = serve.post(f"/{program}", {"question": "sky"})
    assert answer.status == 200
    return json.loads(answer.body)


def assert_recorded(serve, logged, row):
    (record,) = logged.calls
    assert record["outcome"] == "success"
    assert record["lm_calls"] == row.lm_calls
    assert (record["output_tokens"] > 0) == (row.lm_calls > 0)
    left = {"canceled unfinished background tasks", "unhandled exception in a background task"}
    assert not left & {line.get("message") for line in logged.lines}
    assert serve.environment.runner.stuck() == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.program)
@pytest.mark.parametrize("call", [call_direct, call_http])
def test_every_dspy_module_answers_a_request(serve, records, call, row):
    records()
    assert row.outputs.items() <= call(serve, row.program).items()
    assert_recorded(serve, records(), row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.program)
def test_every_dspy_module_processes_a_record(serve, records, row):
    records()
    event = sqs({"program": row.program, "inputs": {"question": "sky"}})
    assert failures(serve(event)) == []
    assert_recorded(serve, records(), row)


def test_copies_that_refine_makes_keep_the_deadline(serve, records, models):
    records()
    models.behave(hang_rate=1)
    with pytest.raises(DeadlineExceeded):
        serve({"program": "UsesBestOfNInRefine", "inputs": {"question": "sky"}}, Context(remaining_ms=1500))
    models.behave()
    time.sleep(0.8)  # its thread unwinds: any further attempt of Refine is late
    assert models.stats()["requests"] == 0
    assert serve({"program": "UsesPredict", "inputs": {"question": "sky"}})["outputs"] == {"answer": ANSWER}
