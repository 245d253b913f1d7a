"""The restrictions of a function, as on Lambda."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.local.support import RUN, direct

WRITER = """
import pathlib, socket, tempfile
class Writer(dspy.Module):
    async def aforward(self, folder: str) -> str:
        try:
            (pathlib.Path(folder) / "written-by-a-function").write_text("x")
            return "written"
        except OSError as error:
            return type(error).__name__ + " " + str(error.errno)
"""


def test_task_root_and_home_are_read_only_and_tmp_is_writable(make_project, make_local, tmp_path):
    project = make_project({"writer": WRITER})
    outside = tmp_path / "elsewhere"
    outside.mkdir()

    async def run():
        async with make_local(project) as local:
            if local.writable:
                pytest.skip(f"no read-only task root on this machine: {local.writable}")
            function = local.function("Writer")
            places = (project, project / "src", Path.home(), Path(sys.prefix), outside)
            return [json.loads((await function.invoke(direct(folder=str(place)))).payload) for place in places]

    *inside, elsewhere = [answer["outputs"]["result"] for answer in asyncio.run(run())]
    assert inside == ["OSError 30"] * 4
    assert elsewhere == "written"
    assert not (project / "written-by-a-function").exists()


def test_the_sdk_can_renew_the_developers_tokens_in_the_read_only_home(make_project, make_local, tmp_path, monkeypatch):
    project = make_project({"writer": WRITER})
    home = project / "home"
    caches = [home / ".aws" / "sso" / "cache", home / ".aws" / "login" / "cache"]
    for cache in caches:
        cache.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    async def run():
        async with make_local(project) as local:
            if local.writable:
                pytest.skip(f"no read-only task root on this machine: {local.writable}")
            function = local.function("Writer")
            places = (home, home / ".aws", *caches)
            return [json.loads((await function.invoke(direct(folder=str(place)))).payload) for place in places]

    assert [answer["outputs"]["result"] for answer in asyncio.run(run())] == ["OSError 30"] * 2 + ["written"] * 2


ORPHANS = """
import os, subprocess
class Orphans(dspy.Module):
    async def aforward(self, session: bool) -> str:
        subprocess.Popen(["sleep", "777"], start_new_session=session)
        os._exit(3)
"""


@pytest.mark.parametrize("session", [False, True])
def test_child_processes_die_with_their_environment(make_project, make_local, session):
    project = make_project({"orphans": ORPHANS})

    async def run():
        async with make_local(project) as local:
            if local.writable and session:
                pytest.skip(f"no process namespaces on this machine: {local.writable}")
            answer = await asyncio.wait_for(local.function("Orphans").invoke(direct(session=session)), 60)
            return answer.error

    assert asyncio.run(run()) == "Runtime.ExitError"
    listed = subprocess.run(["ps", "axeww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if line.startswith("sleep 777") and RUN in line]
