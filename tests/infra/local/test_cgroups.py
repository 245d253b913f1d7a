"""Memory and CPU limits; those with processes are skipped where control groups cannot be used."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_lambda_infra.local import cgroups
from dspy_lambda_infra.local.cgroup_places import FREEZER, Place, find_places
from dspy_lambda_infra.local.cgroups import Group
from dspy_lambda_infra.local.environment import ExecutionEnvironment
from tests.conftest import QUICKSTART
from tests.infra.local.support import direct

needs_limits = pytest.mark.skipif(bool(cgroups.find().unlimited), reason=str(cgroups.find().unlimited))


def read(group, *names):
    """Return the first of these files that exists in one of the group's folders."""
    for folder in group.folders:
        for name in names:
            if (folder / name).exists():
                return (folder / name).read_text().split()
    raise FileNotFoundError(names)


@needs_limits
def test_a_group_limits_memory_swap_and_cpu_share():
    group = cgroups.find().group(512)
    try:
        assert read(group, "memory.max", "memory.limit_in_bytes") == [str(512 * 2**20)]
        assert read(group, "memory.swap.max", "memory.memsw.limit_in_bytes") in (["0"], [str(512 * 2**20)])
        assert read(group, "cpu.max", "cpu.cfs_quota_us")[0] in ("max", "-1")
        group.limit_cpu()
        quota = int(read(group, "cpu.max", "cpu.cfs_quota_us")[0])
        period = int(read(group, "cpu.max", "cpu.cfs_period_us")[-1])
        assert quota / period == pytest.approx(512 / 1769, rel=0.01)
    finally:
        assert group.remove()
    assert not any(folder.exists() for folder in group.folders)


@needs_limits
def test_a_share_of_more_cores_than_available_is_not_limited(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    group = cgroups.find().group(10_240)
    try:
        group.limit_cpu()
        assert read(group, "cpu.max", "cpu.cfs_quota_us")[0] in ("max", "-1")
    finally:
        group.remove()


@needs_limits
def test_groups_of_a_killed_local_lambda_are_removed():
    limits = cgroups.find()
    with subprocess.Popen(["true"]) as gone:
        pass
    stale = [parent / f"dspy-lambda-{gone.pid}-0" for parent in {parent for _, parent in limits.parents.values()}]
    for folder in stale:
        folder.mkdir()
    mine = limits.group(128)
    limits.sweep()
    assert not any(folder.exists() for folder in stale)
    assert mine.remove()


def test_resources_that_cannot_be_limited_are_reported_with_the_reason(monkeypatch, tmp_path):
    nowhere = Place(2, (tmp_path / "nowhere",))
    monkeypatch.setattr(cgroups, "find_places", lambda *_: {"memory": nowhere, "cpu": nowhere})
    limits = cgroups.find.__wrapped__()
    assert limits.parents == {}
    assert limits.unlimited.startswith("memory and CPU: ")
    assert str(tmp_path / "nowhere") in limits.unlimited


@needs_limits
def test_one_controller_is_used_if_the_other_is_unavailable(monkeypatch, tmp_path):
    places = find_places(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    nowhere = Place(1, (tmp_path / "nowhere",))
    monkeypatch.setattr(cgroups, "find_places", lambda *_: places | {"cpu": nowhere})
    limits = cgroups.find.__wrapped__()
    assert set(limits.parents) - {FREEZER} == {"memory"}
    assert limits.unlimited.startswith("CPU: ")


GREEDY = """
import os, tempfile, time
class Greedy(dspy.Module):
    async def aforward(self, mb: int = 0, seconds: float = 0, write: str = "", die: int = 0) -> dict:
        folder = tempfile.gettempdir()
        if write: open(os.path.join(folder, write), "w").close()
        if die: os.kill(os.getpid(), die)
        held = [b"x" * 2**20 for _ in range(mb)]
        begin, used = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds: pass
        return {"share": (time.process_time() - used) / seconds if seconds else 0, "files": os.listdir(folder)}
"""


@pytest.fixture
def invoke_in_turn(make_project, make_local):
    """Run events one after another in one function and return the answers."""

    def invoke_in_turn(memory_mb, *events, **options):
        project = make_project({"greedy": GREEDY}, **{"lambda": {"defaults": {"memory_mb": memory_mb}}})

        async def run():
            async with make_local(project, **options) as local:
                return [await local.function("Greedy").invoke(direct(**event)) for event in events]

        return asyncio.run(run())

    return invoke_in_turn


def result(answer):
    return json.loads(answer.payload)["outputs"]


@needs_limits
def test_running_out_of_memory_is_reported_as_on_lambda(invoke_in_turn, lines):
    before, killed, after = invoke_in_turn(256, {"write": "left", "mb": 50}, {"mb": 400}, {})
    assert (before.error, killed.error, after.error) == (None, "Runtime.ExitError", None)
    request_id = json.loads(killed.payload)["requestId"]
    assert killed.message == f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"
    assert result(after)["files"] == ["left"]
    assert [report["status"] for report in lines.reports] == ["success", "error", "success"]


@needs_limits
def test_running_out_of_memory_during_init_is_reported_as_on_lambda(make_project, make_local, lines):
    module = "HELD = 'AWS_LAMBDA_RUNTIME_API' in __import__('os').environ and b'x' * 2**28\n" + GREEDY
    project = make_project({"greedy": module}, **{"lambda": {"defaults": {"memory_mb": 200}}})

    async def run():
        async with make_local(project) as local:
            return await local.function("Greedy").invoke(direct())

    assert asyncio.run(run()).message == "Error: Runtime exited with error: signal: killed"
    (report,) = lines.reports_of("platform.initReport")
    assert report["errorType"] == "Runtime.ExitError"


def test_a_program_that_kills_itself_is_reported_as_on_lambda(invoke_in_turn):
    killed, aborted, after = invoke_in_turn(1024, {"die": 9}, {"die": 6}, {})
    assert killed.message.endswith("Runtime exited with error: signal: killed")
    assert aborted.message.endswith("Runtime exited with error: signal: aborted")
    assert after.error is None


@needs_limits
def test_a_function_gets_only_its_cpu_share(invoke_in_turn):
    (answer,) = invoke_in_turn(442, {"seconds": 2})
    assert result(answer)["share"] < 0.35


@needs_limits
def test_init_is_not_limited_to_the_cpu_share(invoke_in_turn, monkeypatch):
    """At 128 MB the imports alone would take over 10 s."""
    order = []
    ready, limit_cpu = ExecutionEnvironment._wait_until_ready, Group.limit_cpu

    async def wait_until_ready(environment, exited, seconds):
        await ready(environment, exited, seconds)
        order.append("ready")

    monkeypatch.setattr(ExecutionEnvironment, "_wait_until_ready", wait_until_ready)
    monkeypatch.setattr(Group, "limit_cpu", lambda group: order.append("limited") or limit_cpu(group))
    (answer,) = invoke_in_turn(128, {})
    assert answer.error is None
    assert order[:2] == ["ready", "limited"]


@needs_limits
def test_local_resource_limits_can_be_disabled(invoke_in_turn):
    (answer,) = invoke_in_turn(128, {"mb": 300}, limit_resources=False)
    assert answer.error is None


@needs_limits
@pytest.mark.parametrize("option", [[], ["--no-limits"]])
def test_commands_limit_resources_by_default(make_project, tmp_path, capsys, option):
    from dspy_lambda_infra.cli import main

    project = make_project({"greedy": GREEDY}, **{"lambda": {"defaults": {"memory_mb": 256}}})
    event = tmp_path / "event.json"
    event.write_bytes(direct(mb=400))
    status = main(["invoke", "Greedy", "--event", str(event), "--project", str(project), "--model-server", *option])
    assert ("signal: killed" in capsys.readouterr().out, status) == ((False, 0) if option else (True, 1))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
@pytest.mark.parametrize("option", [[], ["--no-limits"]])
def test_local_prints_one_line_about_what_is_not_limited(option):
    hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'umount -R /sys/fs/cgroup; exec "$@"', "sh"]
    words = [sys.executable, "-m", "dspy_lambda_infra.cli", "local", "--project", str(QUICKSTART), "--model-server"]
    with subprocess.Popen([*hidden, *words, "--port", "0", *option], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline().startswith("ready ")
        process.terminate()
        _, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if "NOT limited" in line]
    assert said == ([] if option else ["NOT limited here: memory and CPU: no control groups are mounted"])


@needs_limits
def test_no_control_group_remains_after_the_local_lambda_stops(invoke_in_turn):
    invoke_in_turn(1024, {}, {"die": 9}, {})
    parents = {parent for _, parent in cgroups.find().parents.values()}
    assert [folder for parent in parents for folder in parent.glob(f"dspy-lambda-{os.getpid()}-*")] == []
