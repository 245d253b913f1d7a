import json

import pytest

from dspy_lambda_infra.terminal import Terminal, columns
from dspy_lambda_infra.traces.spans import spans
from dspy_lambda_infra.traces.waterfall import milliseconds, waterfall
from tests.infra.traces import otlp
from tests.infra.traces.otlp import request, span


def drawn(*found, width=None, unicode=True, **options):
    return list(waterfall(list(spans(request(*found))), Terminal(width, colors=False, unicode=unicode), **options))


def bar(line, sign="█"):
    """Return where a line's bar begins and how long it is."""
    return line.index(sign), line.count(sign)


def test_each_span_has_a_line_with_its_place_in_time():
    title, *lines = drawn(*otlp.call())
    assert title.startswith(f"trace {otlp.TRACE}  request {otlp.REQUEST}  QaFunction")
    rows = [line for line in lines if "█" in line]
    assert len(rows) == 8
    assert rows[0].endswith("0 ms   1,000 ms  cold start")
    assert rows[1].startswith("└─ invoke_workflow Qa")
    assert rows[3].startswith("      ├─ ∥ chat gpt-4o-mini")
    assert rows[4].startswith("      ├─ ∥ chat llama-3")
    assert rows[5].startswith("      │  ├─ attempt 1")
    assert rows[7].startswith("      └─ execute_tool search")
    assert "failed: RateLimitError" in rows[5]
    assert "instead of default: rate limited" in "\n".join(lines)


def test_bars_share_one_axis():
    root, first, second, instant = drawn(
        span(1, 0, "r", 0, 1000), span(2, 1, "a", 0, 500), span(3, 1, "b", 500, 1000), span(4, 1, "c", 1000, 1000)
    )[1:]
    start, length = bar(root)
    assert bar(first) == (start, length // 2)
    assert bar(second) == (start + length // 2, length // 2)
    assert bar(instant) == (start + length - 1, 1)


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_lines_fit_the_terminal(width, unicode):
    call = otlp.call(gen_ai__input__messages=json.dumps([{"role": "user", "content": "word " * 99 + "x" * 300}]))
    lines = drawn(*call, width=width, unicode=unicode, with_payloads=True)
    assert max(map(columns, lines)) <= width
    assert unicode or all(map(str.isascii, lines))


def test_unfinished_spans_are_marked_and_drawn_to_the_end():
    call = [span(1, 0, "r", 0, 100), span(2, 1, "a", 50, None), span(3, 1, "b", 0, 50, error="unfinished")]
    root, finished, endless = drawn(*call)[1:]
    start, length = bar(root)
    assert bar(endless, "▒") == (start + length // 2, length - length // 2)
    assert bar(finished, "▒")[0] == start
    assert "? " in endless
    assert "unfinished: it has no end" in endless


def test_payloads_are_shown_only_on_request():
    call = otlp.call(gen_ai__input__messages="ask\x1b[2J", gen_ai__output__messages="answer")
    assert not any("gen_ai." in line for line in drawn(*call))
    lines = drawn(*call, with_payloads=True)
    assert [line.strip(" │") for line in lines if "ask" in line or "answer" in line] == ["ask\\x1b[2J", "answer"]
    assert all(map(str.isprintable, lines))


def test_names_cannot_control_the_terminal():
    assert all(map(str.isprintable, drawn(span(1, 0, "\x1b[2J\nevil" * 99, 0, 1, faas__invocation_id="\x1b[3J"))))


def test_clocks_that_disagree_and_impossible_times_are_drawn():
    assert len(drawn(span(1, 0, "r", 100, 200), span(2, 1, "early", 0, 50), span(3, 1, "backwards", 150, 120))) == 4
    assert len(drawn({**span(1, 0, "r", 0, 0), "startTimeUnixNano": "9" * 19})) == 2


def test_durations_are_in_milliseconds_up_to_a_minute():
    assert [milliseconds(int(ns)) for ns in (0, 1.5e6, 59_999e6, 61e9)] == ["0 ms", "1.5 ms", "59,999 ms", "61.0 s"]
