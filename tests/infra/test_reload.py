import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

from dspy_lambda_infra.reload import _state

SAYS = """
class Says(dspy.Module):
    def forward(self) -> str:
        return "{word}"
"""


class Reloading:
    """A command with `--reload` in a separate process, and the lines of both of its streams."""

    def __init__(self, command, project, *options):
        words = [sys.executable, "-m", "dspy_lambda_infra.cli", command, "--reload", "--project", str(project)]
        # Unlike a shell's background jobs, it receives SIGINT.
        self.process = subprocess.Popen(
            [*words, "--port", "0", "--model-server", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self, says):
        """Return the next line with these words."""
        while says not in (line := self._lines.get(timeout=60)):
            pass
        return line

    def ready(self):
        """Wait until it serves and return its address."""
        return self.line("ready http://").split()[1]

    def stop(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            reloading = Reloading(*arguments)
            stack.callback(reloading.process.wait)
            stack.callback(reloading.process.kill)
            return reloading

        yield start


def post(url):
    request = urllib.request.Request(f"{url}/Says", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["result"]


def file_of(project, name):
    return next(project.glob(f"src/*/modules/{name}.py"))


@pytest.mark.parametrize("command", ["serve", "local"])
def test_reload_serves_a_changed_program_at_the_same_address(make_project, start, command):
    project = make_project({"says": SAYS.format(word="before")})
    reloading = start(command, project)
    url = reloading.ready()
    assert post(url) == "before"
    program = file_of(project, "says")
    program.write_text(program.read_text().replace("before", "afterwards"))
    assert "says.py changed: restarting" in reloading.line("changed")
    assert reloading.ready() == url
    assert post(url) == "afterwards"
    assert reloading.stop(signal.SIGINT) == 130
    with pytest.raises(OSError, match="refused"):
        post(url)


def test_reload_waits_while_the_config_is_invalid(make_project, start):
    project = make_project({"says": SAYS.format(word="word")})
    config = project / "dspy.config.yaml"
    text = config.read_text()
    config.write_text("models: []")
    reloading = start("serve", project)
    reloading.line("dspy.config.yaml: ")
    reloading.line("ended with status 2; waiting for a change")
    config.write_text(text)
    assert post(reloading.ready()) == "word"
    assert reloading.stop(signal.SIGTERM) == 128 + signal.SIGTERM  # uvicorn's, as a shell reports it


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, of Linux")
def test_no_process_outlives_a_killed_reloader(make_project, start):
    project = make_project({"says": SAYS.format(word="word")})
    reloading = start("serve", project)
    reloading.ready()
    reloading.stop(signal.SIGKILL)
    # The pipe ends when no process holds it open.
    reloading.reader.join(30)
    assert not reloading.reader.is_alive()


def test_reload_in_a_folder_without_a_config_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "serve", "--reload", "--project", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"dspy-lambda: {tmp_path}/dspy.config.yaml: no such file")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("src/package/modules/new.py", True),
        ("dspy.config.yaml", True),
        ("prompts/system.md", True),
        (".env", True),
        ("ignored.csv", False),
        ("src/package/__pycache__/new.pyc", False),
        (".venv/lib/new.py", False),
        ("template.yaml", False),
    ],
)
def test_reload_watches_the_files_that_an_artifact_would_contain(tmp_path, name, counts):
    (tmp_path / ".gitignore").write_text("ignored.csv\n.env\n")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    before = _state(tmp_path)
    (tmp_path / name).write_text("new")
    assert (_state(tmp_path) != before) is counts
    os.utime(tmp_path / name, (1, 1))
    assert (before == _state(tmp_path)) is not counts
