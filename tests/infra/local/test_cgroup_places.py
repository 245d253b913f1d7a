"""Where control groups can be created."""

from pathlib import Path

import pytest

from dspy_lambda_infra.local.cgroup_places import Place, find_places

MOUNT = "31 23 0:27 {root} {point} rw,nosuid - {kind} cgroup rw,{options}\n"


V2 = MOUNT.format(root="/", point="/sys/fs/cgroup", kind="cgroup2", options="nsdelegate")


OTHER = "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"


def v1(point, options):
    return MOUNT.format(root="/", point=point, kind="cgroup", options=options)


@pytest.mark.parametrize(
    ("mounts", "own", "memory", "cpu"),
    [
        (OTHER, "", None, None),
        (
            OTHER + V2,
            "0::/user.slice/a.scope\n",
            (2, "/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"),
            (2, "/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"),
        ),
        (V2, "0::/\n", (2, "/sys/fs/cgroup"), (2, "/sys/fs/cgroup")),
        (
            v1("/cg/memory", "memory") + v1("/cg/cpu,cpuacct", "cpu,cpuacct"),
            "5:memory:/a/b\n4:cpu,cpuacct:/\n",
            (1, "/cg/memory/a/b"),
            (1, "/cg/cpu,cpuacct"),
        ),
        # Each controller is in only one hierarchy, of version 1 or version 2.
        (v1("/cg/memory", "memory") + V2, "5:memory:/a\n0::/\n", (1, "/cg/memory/a"), (2, "/sys/fs/cgroup")),
        (v1("/cg/cpuset", "cpuset"), "5:cpuset:/\n", None, None),
        # In a container: only its own part of the hierarchy is mounted, or it has its own namespace.
        (
            MOUNT.format(root="/docker/1", point="/cg/memory", kind="cgroup", options="memory"),
            "5:memory:/docker/1/x\n",
            (1, "/cg/memory/x"),
            None,
        ),
        (
            MOUNT.format(root="/docker/2", point="/cg/memory", kind="cgroup", options="memory"),
            "5:memory:/docker/1\n",
            None,
            None,
        ),
    ],
)
def test_control_groups_are_created_below_this_processs_own(mounts, own, memory, cpu):
    def place(expected):
        return expected and Place(expected[0], tuple(map(Path, expected[1:])))

    places = find_places(mounts, own)
    assert (places.get("memory"), places.get("cpu")) == (place(memory), place(cpu))
