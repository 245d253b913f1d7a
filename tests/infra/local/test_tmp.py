"""Each execution environment's own temporary folder."""

import asyncio
import json
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.infra.local.support import direct

KEEPS = """
import asyncio, os, pathlib, re, tempfile
folder = pathlib.Path(tempfile.gettempdir())
FOUND = sorted(path.name for path in folder.iterdir())
if (folder / "bad-init").exists(): raise ValueError("left by the last one")
class Keeps(dspy.Module):
    async def aforward(self, write: str = "", seconds: float = 0, hold: bool = False, exit: bool = False) -> list[str]:
        if write: (folder / write).write_text("kept")
        if exit: os._exit(3)
        if hold: re.match("(a+)+$", "a" * 64 + "b")  # holds the GIL until the kill
        await asyncio.sleep(seconds)
        return [os.environ["TMPDIR"], *FOUND]
"""


@pytest.fixture
def invoke_in_turn(make_project, make_local):
    """Run events one after another in one function and return the outputs."""

    def invoke_in_turn(*events):
        project = make_project({"keeps": KEEPS}, **{"lambda": {"defaults": {"timeout_seconds": 3}}})

        async def run():
            async with make_local(project) as local:
                function = local.function("Keeps")
                answers = [json.loads((await function.invoke(direct(**event))).payload) for event in events]
                return [answer.get("outputs", {}).get("result") for answer in answers]

        return asyncio.run(run())

    return invoke_in_turn


def test_concurrent_environments_have_separate_fresh_tmp_folders(make_project, make_local):
    project = make_project({"keeps": KEEPS})

    async def run():
        async with make_local(project) as local:
            function = local.function("Keeps")
            answers = await asyncio.gather(*(function.invoke(direct(write="mine", seconds=0.5)) for _ in range(3)))
            results = [json.loads(answer.payload)["outputs"]["result"] for answer in answers]
            return results, [Path(folder).is_dir() for folder, *_ in results]

    results, existed = asyncio.run(run())
    assert all(found == [] for _, *found in results)
    assert len({folder for folder, *_ in results}) == 3
    assert all(existed)
    assert not any(Path(folder).exists() for folder, *_ in results)


@pytest.mark.parametrize("death", [{"exit": True}, {"hold": True}])
def test_a_replacement_process_keeps_the_tmp_content(invoke_in_turn, death):
    first, _, third = invoke_in_turn({}, {"write": "left", **death}, {})
    assert third == [first[0], "left"]
    assert not Path(first[0]).exists()


def test_a_warm_environment_keeps_its_tmp_folder(invoke_in_turn):
    first, second = invoke_in_turn({"write": "mine"}, {})
    assert first == second


def test_a_process_after_a_failed_init_keeps_the_tmp_content(invoke_in_turn):
    _, *failed = invoke_in_turn({"write": "bad-init", "exit": True}, {}, {})
    assert failed == [None, None]


def test_local_leaves_no_tmp_folder_behind(make_project, tmp_path, monkeypatch, command):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    project = make_project({"keeps": KEEPS})
    with command("local", "--project", str(project), "--model-server", "--port", "0") as process:
        url = process.stdout.readline().split()[1]
        request = urllib.request.Request(f"{url}/Keeps", b"{}", {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            (own,) = json.load(answer)["result"]
        assert Path(own).parent == folder
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert list(folder.iterdir()) == []
