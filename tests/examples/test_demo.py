import asyncio
import importlib.util
import json

import pytest

from tests.conftest import ROOT

LONG = "What customers write may be much longer than a terminal is wide, in words or-without-any-of-them. " * 3


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def log(demo):
    """The lines of one call of each program."""
    lines = []
    for program in demo.REQUESTS:
        record = {"message": "program call", "program": program, "input_tokens": 123_456, "output_tokens": 12_345}
        record |= {"cost_usd": 12.3456789, "text": LONG, "outcome": "success"}
        metrics = {"_aws": {"CloudWatchMetrics": [{"Namespace": "DSPy", "Metrics": [{"Name": "Calls"}]}]}, "Calls": [1]}
        lines += [(f"{program}Function", json.dumps(line)) for line in (record, metrics)]
    return lines


def test_demo_output_fits_80_columns(demo, log, monkeypatch, capsys):
    monkeypatch.setattr(demo, "post", lambda url, body: (200, {"answer": LONG}, 59.9))
    asyncio.run(demo.over_http("http://127.0.0.1:3000", log))
    assert demo.show_one_call(log) == []
    print(demo.INTRODUCTION, demo.NEXT)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_demo_reports_an_answer_without_the_programs_outputs(demo, log, monkeypatch):
    outputs = {url: dict.fromkeys(fields, "x") for url, (_, fields) in demo.REQUESTS.items()}
    monkeypatch.setattr(demo, "post", lambda url, body: (200, outputs[url.rpartition("/")[2]], 0.1))
    assert asyncio.run(demo.over_http("", log)) == []
    outputs["Answer"] = {"result": "x"}
    assert asyncio.run(demo.over_http("", log)) == ["Answer: 200 {'result': 'x'}"]


def test_the_demo_reports_a_call_without_a_log_record(demo):
    assert demo.show_one_call([]) == ["no log record or no metrics of a call"]
