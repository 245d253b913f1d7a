import pytest

from dspy_lambda_infra.doctor.traces import trace_use, traces_text
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


@pytest.fixture
def shown(make_project):
    def show(**telemetry):
        project = load_project(make_project({"echo": ECHO}, telemetry=telemetry))
        return traces_text([trace_use(project.functions["Echo"])])

    return show


def test_a_project_without_traces_and_payloads_has_no_table(shown):
    assert shown() == ""
    assert shown(model_metrics=True) == ""


@pytest.mark.parametrize(
    ("telemetry", "kept"),
    [
        ({}, "0.1 of all; all that failed or took 48 s or longer; the caller's decision comes first"),
        ({"sample": 0, "slow_seconds": 5, "incoming": "ignore"}, "0 of all; all that failed or took 5 s or longer"),
        ({"sample": 1, "incoming": "ignore"}, "all"),
    ],
)
def test_the_table_says_what_is_kept(shown, telemetry, kept):
    (_, row) = shown(traces="cloudwatch", **telemetry).splitlines()
    assert row.split("  ")[0] == "Echo"
    assert f"cloudwatch  {kept}" in " ".join(row.split(" "))


@pytest.mark.parametrize(
    ("telemetry", "written"),
    [
        ({}, "not written"),
        ({"payloads": "sizes"}, "only their sizes"),
        ({"payloads": "full", "max_payload_bytes": 500}, "full: up to 500 bytes each"),
        (
            {"payloads": "masked", "mask": ["email", "/[0-9]{9}/"], "mask_with": "a.b:hide"},
            "masked: up to 10,000 bytes each, without email, /[0-9]{9}/, a.b:hide",
        ),
    ],
)
def test_the_table_says_what_is_written_of_inputs_and_answers(shown, telemetry, written):
    assert shown(traces="https://collector.example", **telemetry).endswith(written)
