"""The `telemetry` section: what it accepts, what it inherits, and what it says about mistakes."""

from __future__ import annotations

import pytest

from dspy_lambda.config import load_config
from dspy_lambda.errors import ConfigError

MODELS = "models:\n  default: m\n  registry:\n    m: {model: openai/m}\n"


def load(tmp_path, text):
    (tmp_path / "dspy.config.yaml").write_text(MODELS + text)
    return load_config(tmp_path)


def test_nothing_is_exported_or_written_by_default(tmp_path):
    settings = load(tmp_path, "").lambda_.function("Answer").telemetry
    assert (settings.traces, settings.payloads) == ("none", "none")


def test_a_program_inherits_the_top_level_section_and_the_defaults(tmp_path):
    text = (
        "telemetry: {traces: cloudwatch, sample: 0.5, mask: [ssn]}\n"
        "lambda:\n  defaults: {telemetry: {sample: 0.2}}\n"
        "  programs: {Own: {telemetry: {payloads: sizes, mask: [pin]}}}\n"
    )
    config = load(tmp_path, text)
    other, own = (config.lambda_.function(name).telemetry for name in ("Other", "Own"))
    assert (other.traces, other.sample, other.mask, other.payloads) == ("cloudwatch", 0.2, ["ssn"], "none")
    assert (own.traces, own.sample, own.mask, own.payloads) == ("cloudwatch", 0.2, ["pin"], "sizes")


def test_the_top_level_section_alone_reaches_programs(tmp_path):
    assert load(tmp_path, "telemetry: {payloads: full}\n").lambda_.function("A").telemetry.payloads == "full"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{traces: off}", "telemetry.traces: Input should be a valid string"),
        ("{traces: collector:4318}", "telemetry.traces: write none, cloudwatch, or a collector's address"),
        ("{traces: 'https://user:pw@host'}", "telemetry.traces: leave user, password and query out"),
        ("{traces: 'http://host:99999'}", "telemetry.traces: write none, cloudwatch"),
        ("{mask: ['/(/']}", "telemetry.mask.0: not a regular expression"),
        ("{mask: ['/a*/']}", "telemetry.mask.0: the pattern matches an empty text"),
        ("{mask: ['/x']}", "telemetry.mask.0: write a pattern between slashes"),
        ("{mask: ['/(a+)+$/']}", "telemetry.mask.0: the pattern repeats a repeat"),
        ("{mask_with: nowhere}", "telemetry.mask_with"),
        ("{headers_env: KEY}", "telemetry: headers_env is for a collector's address; traces is none"),
        ("{sampel: 1}", "telemetry.sampel: unknown key; allowed here: traces, headers_env, sample"),
    ],
)
def test_a_mistake_is_named_once(tmp_path, section, expected):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"telemetry: {section}\n")
    assert str(error.value).count("\n") == 0
    assert expected in str(error.value)


def test_a_password_in_an_address_is_not_repeated(tmp_path):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "telemetry: {traces: 'https://user:hunter22@host'}\n")
    assert "hunter22" not in str(error.value)
