import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dspy
import pytest

from dspy_lambda.environment import Environment
from dspy_lambda.telemetry.output import Output
from dspy_lambda_infra.local.events import Request, rest_event
from dspy_lambda_infra.model_server import completion, count_tokens
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO, Context, Serve, failures, sqs, without_retries

FIELDS = {
    "level",
    "message",
    "timestamp",
    "service",
    "program",
    "model",
    "source",
    "outcome",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "lm_calls",
    "cache_hits",
    "cold_start",
    "function_request_id",
    "correlation_id",
}


def test_a_call_is_one_json_line_with_the_fields_of_the_contract(serve, records):
    records()
    context = Context()
    serve.post("/Answer", {"question": "secret"}, context=context)
    logged = records()
    (line,) = [line for line in logged.lines if "_aws" not in line]
    assert set(line) == FIELDS
    assert (line["program"], line["model"], line["source"], line["outcome"]) == ("Answer", "fast", "rest", "success")
    assert line["function_request_id"] == context.aws_request_id
    assert line["cold_start"] is True
    assert (line["lm_calls"], line["cache_hits"]) == (1, 0)
    assert "secret" not in json.dumps(logged.lines)


def test_the_startup_line_lists_the_programs_and_how_they_are_called(make_serve, records):
    make_serve(QUICKSTART)
    (line,) = records().lines
    assert line["message"] == "environment ready"
    assert line["programs"] == {
        "Answer": "sync: forward of Answer",
        "Perspectives": "async: aforward of Perspectives",
        "Summarise": "async: aforward of Summarise",
        "Triage": "async: aforward of Triage",
    }
    assert line["models"]["Triage"] == "strong"
    assert line["sync_worker_threads"] == 100


def test_cold_start_marks_every_record_of_the_first_invocation_and_no_later_one(serve, records):
    batch = sqs(*[{"program": "Summarise", "inputs": {"text": "t"}}] * 3)
    for cold in (True, False):
        serve(batch)
        logged = records()
        assert [call["cold_start"] for call in logged.calls] == [cold] * 3
        assert sum(logged.values("ColdStart")) == cold


def test_ids_lead_from_the_record_to_the_request(serve, event, records):
    serve(event("rest"))
    serve(event("alb"))
    serve(event("sqs-one"))
    rest, alb, record = records().calls
    assert rest["correlation_id"] == event("rest")["requestContext"]["requestId"]
    assert alb["correlation_id"] == event("alb")["headers"]["x-amzn-trace-id"]
    assert record["correlation_id"] == record["message_id"] == event("sqs-one")["Records"][0]["messageId"]
    assert "message_id" not in rest


def expected_usage(program: str, inputs: dict[str, str]) -> tuple[int, int]:
    """The tokens that the model server counts for a call of a one-predictor program, from DSPy's prompt."""
    module = dspy.Predict("question -> answer")
    messages = dspy.ChatAdapter().format(module.signature, [], inputs)
    answer = f"[[ ## answer ## ]]\ngpt-4.1-nano: {inputs['question']}\n\n[[ ## completed ## ]]"
    usage = completion({"model": "m", "messages": messages}, answer)["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("name", ["Echo", "AEcho"])
def test_tokens_and_cost_are_exact_for_every_call_of_a_hundred_at_once(make_project, make_serve, models, records, name):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    models.behave(delay_seconds=0.5)
    questions = [" ".join(["word"] * n) for n in range(1, 101)]
    assert failures(serve(sqs(*({"program": name, "inputs": {"question": q}} for q in questions)))) == []
    assert models.stats()["peak_in_flight"] > 10  # fewer than a hundred on a busy machine
    logged = records()
    for call in logged.calls:
        question = questions[int(call["message_id"][1:])]
        inputs, outputs = expected_usage(name, {"question": question})
        assert (call["input_tokens"], call["output_tokens"], call["lm_calls"]) == (inputs, outputs, 1)
        # gpt-4.1-nano: 0.10 and 0.40 USD per million tokens, in DSPy's own price map.
        assert call["cost_usd"] == pytest.approx(inputs * 0.1e-6 + outputs * 0.4e-6)
    assert sum(logged.values("InputTokens")) == sum(call["input_tokens"] for call in logged.calls)
    assert sum(logged.values("CostUSD")) == pytest.approx(sum(call["cost_usd"] for call in logged.calls))


@pytest.mark.parametrize("name", ["Fan", "AFan"])
def test_lm_calls_that_a_program_fans_out_are_counted_in_its_call(make_project, make_serve, records, name):
    source = """
    import asyncio
    class Fan(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        def forward(self, n: int) -> int:
            pairs = [(self.predict, {"question": f"q{i}"}) for i in range(n)]
            dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
            return n
    class AFan(Fan):
        async def aforward(self, n: int) -> int:
            await asyncio.gather(*(self.predict.acall(question=f"q{i}") for i in range(n)))
            return n
    """
    serve = make_serve(make_project({"fan": source}, server={"max_concurrent_per_program": 8}))
    assert failures(serve(sqs(*({"program": name, "inputs": {"n": n}} for n in range(1, 9))))) == []
    calls = {call["message_id"]: call for call in records().calls}
    one = calls["m0"]["input_tokens"]
    assert [calls[f"m{n}"]["lm_calls"] for n in range(8)] == list(range(1, 9))
    assert [calls[f"m{n}"]["input_tokens"] for n in range(8)] == [one * n for n in range(1, 9)]


def test_a_cache_hit_costs_nothing_and_is_counted(make_project, make_serve, models, records):
    registry = {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": True}}
    serve = make_serve(make_project({"echo": ECHO}, models={"default": "fast", "registry": registry}))
    for _ in range(2):
        serve({"inputs": {"question": "a question of this test only"}})
    first, second = records().calls
    assert (first["cache_hits"], second["cache_hits"], second["lm_calls"]) == (0, 1, 1)
    assert first["cost_usd"] > 0
    assert (second["input_tokens"], second["output_tokens"], second["cost_usd"]) == (0, 0, 0)
    assert models.stats()["requests"] == 1


def test_an_unknown_price_is_null_and_has_no_metric(make_project, make_serve, records):
    registry = {"own": {"model": "openai/no-model-of-this-name", "env": "OPENAI_API_KEY", "cache": False}}
    serve = make_serve(make_project({"echo": ECHO}, models={"default": "own", "registry": registry}))
    serve({"inputs": {"question": "q"}})
    logged = records()
    assert logged.calls[0]["cost_usd"] is None
    assert logged.calls[0]["input_tokens"] > 0
    assert logged.values("CostUSD") == []
    assert logged.values("InputTokens") == [logged.calls[0]["input_tokens"]]


def test_the_cost_of_a_failed_call_is_logged(make_project, make_serve, models, records):
    serve = make_serve(make_project({"echo": ECHO}))
    models.behave(malformed_rate=1)
    assert serve.post("/Echo", {"question": "q"}).status == 502
    (call,) = records().calls
    assert (call["outcome"], call["level"]) == ("model_error", "ERROR")
    # The chat format, then the JSON format: two answers, both paid for.
    assert call["lm_calls"] == models.stats()["requests"] == 2
    assert call["output_tokens"] == 2 * count_tokens("I would rather not say.")


class Unreadable(BaseHTTPRequestHandler):
    """Answers with an invalid `usage`."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(completion({"model": "m", "messages": []}, "hi") | {"usage": "much"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...


@pytest.mark.parametrize("name", ["Echo", "AEcho"])
def test_the_cost_of_an_unreadable_answer_is_unknown(make_project, make_serve, records, name):
    serve = make_serve(make_project({"echo": ECHO + AECHO}))
    with ThreadingHTTPServer(("127.0.0.1", 0), Unreadable) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for lm in serve.environment.models.values():
            lm.kwargs["api_base"] = f"http://127.0.0.1:{server.server_port}/v1"
        assert serve.post(f"/{name}", {"question": "q"}).status == 502
        server.shutdown()
    (call,) = records().calls
    assert call["cost_usd"] is None


def test_an_unexpected_exception_is_located_without_its_text(make_project, make_serve, records):
    source = "class Bad(dspy.Module):\n    def forward(self, x: str):\n        raise ValueError('sk-secret ' + x)\n"
    serve = make_serve(make_project({"bad": source}))
    serve.post("/Bad", {"x": "private"})
    logged = records()
    (call,) = logged.calls
    assert call["exception_name"] == "ValueError"
    assert call["stack"][-1].endswith("bad.py:4 Bad.forward")
    assert "secret" not in json.dumps(logged.lines)
    assert "private" not in json.dumps(logged.lines)


def test_metrics_of_an_invocation_are_written_in_few_blobs_by_program(make_project, make_serve, records):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}), POWERTOOLS_METRICS_NAMESPACE="Mine")
    bodies = [{"program": p, "inputs": {"question": "q"}} for p in ("Echo",) * 150 + ("AEcho",) * 20]
    serve(sqs(*bodies, "bad"))
    logged = records()
    assert [blob["program"] for blob in logged.metrics] == ["unknown", "Echo", "Echo", "AEcho"] or sorted(
        blob["program"] for blob in logged.metrics
    ) == ["AEcho", "Echo", "Echo", "unknown"]
    for blob in logged.metrics:
        (directive,) = blob["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Mine"
        assert sorted(directive["Dimensions"][0]) == ["program", "service"]
        assert all(len(blob[metric["Name"]]) <= 100 for metric in directive["Metrics"])
    assert len(logged.values("Duration", "Echo")) == sum(logged.values("Calls", "Echo")) == 150
    assert sum(logged.values("LMCalls")) == 170
    assert logged.values("RecordsFailed", "unknown") == [1]
    assert sum(logged.values("RecordsFailed")) == 1
    assert sum(logged.values("Errors")) == 0
    assert sum(logged.values("ColdStart")) == 1


def test_errors_and_rate_limits_have_metrics(make_project, make_serve, models, records):
    serve = without_retries(make_serve(make_project({"echo": ECHO})))
    for fault in ("error_rate", "rate_limit_rate"):
        models.behave(**{fault: 1})
        serve.post("/Echo", {"question": "q"})
    serve.post("/Echo", {})
    logged = records()
    assert [call["outcome"] for call in logged.calls] == ["model_error", "rate_limited", "invalid_input"]
    assert (sum(logged.values("Errors")), sum(logged.values("RateLimited"))) == (1, 1)


def test_library_warnings_are_json_lines_without_their_text(serve, records):
    import logging

    records()
    try:
        raise ValueError("secret")
    except ValueError:
        logging.getLogger("dspy.utils.parallelizer").warning("Error for %s", "secret", exc_info=True)
    (line,) = records().lines
    assert line["level"] == "WARN"
    assert line["message"].startswith("dspy.utils.parallelizer, line ")
    assert line["exception_name"] == "ValueError"
    assert "secret" not in json.dumps(line)


def test_library_warnings_keep_their_text_with_private_logging(make_serve, records):
    import logging

    make_serve(QUICKSTART, DSPY_LAMBDA_LOG_PRIVATE="true")
    records()
    logging.getLogger("dspy.predict.predict").warning("something %s", "odd")
    (line,) = records().lines
    assert (line["level"], line["message"]) == ("WARN", "something odd")


def test_no_lm_history_outlives_a_call(serve):
    from dspy.clients.base_lm import GLOBAL_HISTORY

    before, traced = len(GLOBAL_HISTORY), len(dspy.settings.trace or [])
    serve(sqs(*({"program": "Summarise", "inputs": {"text": f"t{n}"}} for n in range(20))))
    program = serve.environment.programs["Summarise"].instance
    lm = serve.environment.models["fast"]
    assert (len(GLOBAL_HISTORY), program.history, program.shorten.history, lm.history) == (before, [], [], [])
    assert len(dspy.settings.trace or []) == traced


def test_a_correlation_id_that_utf_8_cannot_encode_is_still_logged(models, make_project, tmp_path):
    settings = {"DSPY_LAMBDA_PROJECT": str(make_project({"echo": ECHO})), "OPENAI_API_KEY": "k"}
    with (tmp_path / "log").open("wb") as log:
        settings |= {"DSPY_LAMBDA_API_BASE": models.url, "POWERTOOLS_SERVICE_NAME": "surrogates"}
        serve = Serve(Environment(settings, Output(log.fileno())))
        event = rest_event(Request("POST", "/Echo", body=b'{"question": "q"}'))
        event["requestContext"]["requestId"] = "half a pair: \ud800"
        assert serve(event)["statusCode"] == 200
        serve.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    calls = [line for line in lines if line.get("message") == "program call"]
    assert [call["correlation_id"] for call in calls] == ["half a pair: ?"]
