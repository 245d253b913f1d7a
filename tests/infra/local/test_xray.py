"""The X-Ray trace header."""

import re

import pytest

from dspy_lambda_infra.local.xray import continue_header, runtime_header

ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793"
NEW = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}"


def test_without_a_caller_a_trace_starts_and_is_not_sampled():
    assert re.fullmatch(f"{NEW};Sampled=0", runtime_header(None))
    assert runtime_header(None) != runtime_header(None)


def test_a_trace_is_sampled_only_if_the_caller_says_so():
    assert runtime_header(ROOT) == f"{ROOT};Sampled=0"
    assert runtime_header(f"{ROOT};Sampled=1") == f"{ROOT};Sampled=1"


@pytest.mark.parametrize(
    ("received", "continued"),
    [
        (ROOT, ROOT),
        (f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1", f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"),
        (f"Sampled=0; {ROOT}\n", f"{ROOT};Sampled=0"),
        (f"Self=1-2-3;{ROOT};Lineage=a:b;other", ROOT),
        (f"{ROOT};Parent=x;Sampled=?", ROOT),
    ],
)
def test_a_callers_trace_is_continued(received, continued):
    assert continue_header(received) == continued


@pytest.mark.parametrize(
    "received",
    [None, "", "nonsense", "Root=1-2-3", f"{ROOT}0", "Root=" + "1" * 100_000, ";" * 1000, f"{ROOT}\n", "=;=="],
)
def test_a_malformed_header_starts_a_trace(received):
    assert re.fullmatch(NEW, continue_header(received))
