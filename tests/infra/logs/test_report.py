import base64
import hashlib
import re
from html.parser import HTMLParser

from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.logs.report import Report
from dspy_lambda_infra.logs.totals import Totals
from tests.infra.logs.lines import line

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202e"


class Page(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.texts = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(*lines):
    report, totals = Report(), Totals()
    for one in map(read, lines):
        totals.add(one)
        report.add(one)
    return report.html(totals)


def test_the_page_has_totals_plots_and_the_slowest_and_failed_calls():
    calls = [line(duration_ms=n, function_request_id=f"request-{n}") for n in range(1, 100)]
    text = page(*calls, line(outcome="deadline", exception_name="TimeoutError", function_request_id="failed-1"))
    found = Page(text)
    assert found.open == []
    assert text.count("<svg") == 5 + 7
    assert text.count("request-99<") == 1
    assert "request-70<" not in text
    assert text.count("failed-1<") == 2
    assert {"TimeoutError", "Totals", "0.100000"} <= set(found.texts)


def test_the_page_loads_and_runs_nothing():
    text = page(line(), line(program=EVIL))
    found = Page(text)
    assert not re.search(r"(https?:)?//|url\(|@import|javascript:|data:", text.partition("<body>")[2])
    assert not re.search(r"https?:|url\(|@import", text)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a", "use", "image"}
    assert not [one for one in found.attributes if one[1].startswith("on") or one[1] in ("style", "src", "href")]
    (policy,) = [value for _, name, value in found.attributes if name == "content" and "default-src" in value]
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_texts_of_lines_are_shown_as_texts():
    fields = dict.fromkeys(("program", "model", "outcome", "exception", "function_request_id"), EVIL)
    text = page(line(**fields))
    found = Page(text)
    assert found.open == []
    assert not found.tags & {"script", "img"}
    assert sum(one.startswith("<script>alert(1)</script>") for one in found.texts) >= 8
    assert not set(text) & set("\x1b\u202e")


def test_a_page_without_calls_is_a_page():
    assert Page(page()).open == []
    assert "No calls with a time." in page(line(message="late model call"))


def test_unknown_costs_are_named():
    assert "cost unknown for 1 call" in page(line(cost_usd=None))
