import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.doctor.cold_start import Runtime, Start, median_seconds
from tests.infra.artifact.conftest import HERE


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    try:
        return Runtime(HERE, tmp_path_factory.mktemp("cache"))
    except ConfigError as error:
        pytest.skip(f"needs awslambdaric from PyPI: {error}")


@pytest.fixture
def start(tmp_path):
    """Write an artifact with one module of that source."""

    def make(text):
        (tmp_path / "app.py").write_text(text)
        return Start(tmp_path, "app.handler", {"KEY": "value"})

    return make


def test_a_cold_start_ends_when_the_runtime_client_requests_an_event(runtime, start):
    slow = start("import os, time\ntime.sleep(0.4)\ndef handler(event, context): return os.environ['KEY']\n")
    assert runtime.seconds(slow) > 0.4


EXTENSION = """
import os, threading, time, urllib.request

def call(path, body, **headers):
    url = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2020-01-01/extension/{path}"
    headers = {f"Lambda-Extension-{name}": value for name, value in headers.items()}
    return urllib.request.urlopen(urllib.request.Request(url, body, headers))

registered = call("register", b'{"events": ["INVOKE"]}', Name="own").headers
poll = lambda: call("event/next", None, Identifier=registered["Lambda-Extension-Identifier"])
threading.Thread(target=poll, daemon=True).start()
time.sleep(0.4)

def handler(event, context): pass
"""


def test_an_extensions_requests_do_not_end_a_cold_start(runtime, start):
    assert runtime.seconds(start(EXTENSION)) > 0.4


def test_importing_one_package_can_be_measured_as_the_baseline(runtime, start, tmp_path):
    (tmp_path / "package.py").write_text("import time\ntime.sleep(0.2)\n")
    found = median_seconds(
        runtime,
        {"floor": Start(tmp_path, None, package="package"), "all": start("import package\ndef handler(e, c): pass\n")},
        rounds=1,
    )
    assert found["all"] > found["floor"] > 0.2


def test_a_failed_init_error_contains_its_output(runtime, start):
    with pytest.raises(ConfigError, match=r"init failed[\s\S]*no key, no start"):
        runtime.seconds(start("raise RuntimeError('no key, no start')\n"))


def test_import_times_are_grouped_by_package(runtime, start, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from package import part\n")
    (tmp_path / "package" / "part.py").write_text("import time\ntime.sleep(0.05)\n")
    spent = runtime.imports(start("import package\ndef handler(e, c): pass\n"))
    assert spent["package"] >= 50
    assert spent.most_common(1)[0][0] == "package"


def test_a_missing_python_version_cannot_be_measured(tmp_path):
    with pytest.raises(ConfigError, match=r"no Python 3\.99"):
        Runtime(Target("3.99", "x86_64"), tmp_path)
