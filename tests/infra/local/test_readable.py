import io
import json

import pytest

from dspy_lambda_infra.local.readable import Terminal, answer_to, log_to, readable

CALL = {
    "level": "INFO",
    "message": "program call",
    "timestamp": "2026-11-21T14:35:28.077Z",
    "service": "quickstart",
    "program": "Triage",
    "model": "strong",
    "source": "rest",
    "function_request_id": "1da039d0-07de-4351-a9f8-1c1e3e1a5b0e",
    "outcome": "success",
    "duration_ms": 325.123,
    "input_tokens": 261,
    "output_tokens": 54,
    "cost_usd": 0.0001908,
    "lm_calls": 1,
}


class Screen(io.StringIO):
    def isatty(self):
        return True


def shown(line):
    """Return what a terminal shows for a line, without the time of day."""
    text = line if isinstance(line, str) else json.dumps(line)
    return [part[9:] for part in readable("TriageFunction", text)]


def test_a_call_is_shown_as_one_terminal_line():
    (line,) = readable("TriageFunction", json.dumps(CALL))
    assert line[9:] == "Triage  success 325 ms, 1 LM call, 261+54 tokens, 0.000191 USD"
    assert len(line) <= 80


def test_a_terminal_line_omits_unknown_price_and_absent_model_calls():
    assert shown(CALL | {"cost_usd": None, "lm_calls": 2}) == ["Triage  success 325 ms, 2 LM calls, 261+54 tokens"]
    assert shown(CALL | {"cost_usd": 0.0, "lm_calls": 0}) == ["Triage  success 325 ms"]


def test_a_failed_call_shows_the_exception_and_the_projects_own_frames():
    failed = CALL | {"outcome": "program_error", "lm_calls": 0, "exception_name": "ValueError"}
    failed |= {"exception": "no such\nqueue"}
    failed |= {
        "stack": [
            "/x/dspy_lambda/dispatch.py:9 run",
            "/v/site-packages/dspy/m.py:1 call",
            "src/triage.py:5 sort",
        ]
    }
    assert shown(failed) == [
        "Triage  program_error 325 ms",
        "  ValueError: no such",
        "  queue",
        "    dspy/m.py:1 call",
        "    src/triage.py:5 sort",
    ]


def test_an_invalid_call_shows_the_reason_on_its_line():
    invalid = CALL | {"outcome": "invalid_input", "lm_calls": 0, "exception": "The body is not JSON."}
    assert shown(invalid) == ["Triage  invalid_input: The body is not JSON."]
    misfit = invalid | {"exception": "The inputs do not fit the program: text: Field required."}
    assert shown(misfit) == ["Triage  invalid_input: text: Field required."]
    assert shown(invalid | {"program": "unknown"}) == ["Triage  invalid_input: The body is not JSON."]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ({"_aws": {"Timestamp": 1}, "Calls": [1]}, []),
        ({"level": "INFO", "message": "environment ready", "programs": {"Triage": "async"}}, []),
        (
            {"level": "WARNING", "message": "LAMBDA_WARNING: Unhandled exception. ... a Lambda runtime update ...\r"},
            [],
        ),
        ("Reading the manual", ["Triage  Reading the manual"]),
        ("[1, 2]", ["Triage  [1, 2]"]),
        (
            {"level": "INFO", "message": "hello", "program": "Triage", "logger": "root", "xray_trace_id": "1-6b"},
            ["Triage  hello"],
        ),
        ({"level": "WARNING", "message": "slow", "seconds": 3}, ["Triage  WARNING: slow  seconds=3"]),
        (
            {"errorType": "ConfigError", "errorMessage": "no key\nmore", "stackTrace": ["dspy_lambda/main.py"]},
            ["Triage  ConfigError: no key"],
        ),
    ],
)
def test_log_lines_other_than_calls_are_shortened_or_omitted(line, texts):
    assert shown(line) == texts


def test_lambdas_report_shows_only_what_no_other_line_shows():
    def report(**record):
        return {"type": "platform.report", "record": {"metrics": {"durationMs": 1.0}, **record}}

    assert shown(report(status="success")) == []
    assert shown(report(metrics={"durationMs": 1.0, "initDurationMs": 2345.6})) == ["Triage  (cold start: 2.3 s)"]
    late = report(errorType="Sandbox.Timedout", errorMessage="Task timed out after 3.00 seconds")
    assert shown(late) == ["Triage  Sandbox.Timedout: Task timed out after 3.00 seconds"]
    assert shown(report(errorType="InvalidInput", errorMessage="said by the runtime client")) == []


def test_a_pipe_gets_log_lines_unchanged():
    pipe, terminal = io.StringIO(), Screen()
    for stream in (pipe, terminal):
        log_to(stream)("TriageFunction", json.dumps(CALL))
    assert json.loads(pipe.getvalue()) == CALL
    assert "Triage  success" in terminal.getvalue()


def test_an_answer_is_indented_on_a_terminal_only():
    pipe, terminal = io.StringIO(), Screen()
    payload = b'{"errorType": "InvalidInput", "stackTrace": ["File main.py"]}'
    answer_to(pipe, payload)
    answer_to(terminal, payload)
    assert pipe.getvalue() == payload.decode() + "\n"
    assert terminal.getvalue() == '{\n  "errorType": "InvalidInput"\n}\n'


def test_an_in_process_handlers_log_is_readable_line_by_line():
    screen = Screen()
    Terminal(screen, "serve").write(json.dumps(CALL) + "\n" + '{"message": "late", "level": "INFO"}\n')
    assert [line[9:].split()[0] for line in screen.getvalue().splitlines()] == ["Triage", "serve"]
