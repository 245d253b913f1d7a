import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.cli import main
from dspy_lambda_infra.local.keys import require_headers, require_keys
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


@pytest.fixture
def project(make_project, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return make_project({"echo": ECHO})


@pytest.mark.parametrize("command", ["local", "serve", "invoke"])
def test_a_missing_model_key_is_reported_before_anything_is_ready(project, capsys, command):
    more = ["Echo", "--inputs", '{"question": "q"}'] if command == "invoke" else ["--port", "0"]
    assert main([command, *more, "--project", str(project)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "OPENAI_API_KEY (for Echo)" in line
    assert f"{project}/.env" in line
    assert "--model-server" in line


def test_a_model_key_can_come_from_variables_env_file_config_or_secret(project, make_project, monkeypatch):
    loaded = load_project(project)
    with pytest.raises(ConfigError):
        require_keys(loaded, ["Echo"], {})
    require_keys(loaded, ["Echo"], {"OPENAI_API_KEY": "k"})
    require_keys(loaded, ["Echo"], {"DSPY_LAMBDA_SECRETS": "OPENAI_API_KEY=ssm:/a/b"})
    (project / ".env").write_text("OPENAI_API_KEY=k")
    require_keys(loaded, ["Echo"], {})
    keyless = {"fast": {"model": "openai/own", "api_base": "http://127.0.0.1:1"}}
    require_keys(
        load_project(make_project({"echo": ECHO}, models={"default": "fast", "registry": keyless})), ["Echo"], {}
    )


def test_the_keys_of_fallbacks_and_predictors_are_required_too(make_project):
    registry = {
        "fast": {"model": "openai/a", "env": "FAST_KEY", "fallback": ["spare"]},
        "spare": {"model": "openai/b", "env": "SPARE_KEY"},
    }
    loaded = load_project(make_project({"echo": ECHO}, models={"default": "fast", "registry": registry}))
    with pytest.raises(ConfigError, match=r"no key in SPARE_KEY \(for Echo\)"):
        require_keys(loaded, ["Echo"], {"FAST_KEY": "k"})


def test_missing_headers_of_a_collector_are_named_unless_traces_go_elsewhere(make_project, monkeypatch):
    monkeypatch.delenv("OTLP_HEADERS", raising=False)
    telemetry = {"traces": "https://collector.example", "headers_env": "OTLP_HEADERS"}
    loaded = load_project(make_project({"echo": ECHO}, telemetry=telemetry))
    with pytest.raises(ConfigError, match=r"collector in OTLP_HEADERS \(for Echo\). Add OTLP_HEADERS=... to "):
        require_headers(loaded, ["Echo"], {})
    require_headers(loaded, ["Echo"], {"OTLP_HEADERS": "authorization=Bearer%20x"})
    require_headers(loaded, ["Echo"], {"DSPY_LAMBDA_SECRETS": "OTLP_HEADERS=ssm:/a/b"})
    require_headers(loaded, ["Echo"], {"DSPY_LAMBDA_TRACES": "none"})
