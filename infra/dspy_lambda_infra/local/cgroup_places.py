"""Finds where this process may create control groups: the mounted hierarchies, and its own groups in them.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CONTROLLERS = ("memory", "cpu")
# Every group of version 2 can be frozen, without a controller. Version 1 has one, but what it froze cannot be killed.
FREEZER = "freezer"
# By controller: the version of its control groups (1 or 2) and a folder.
Folders = dict[str, tuple[int, Path]]


@dataclass(frozen=True)
class Place:
    """Where a controller's groups may be created.

    Attributes:
        version: of the control groups, 1 or 2.
        parents: this process's own group; with version 2 also those above it, because there a group either contains
            processes or delegates controllers.
    """

    version: int
    parents: tuple[Path, ...]


def find_places(mountinfo: str, own_groups: str) -> dict[str, Place]:
    """Return the places by controller, from the texts of /proc/self/mountinfo and /proc/self/cgroup.

    A controller in a version 1 hierarchy is not in the version 2 hierarchy.
    """
    own = {names: PurePosixPath(path) for _, names, path in (line.split(":", 2) for line in own_groups.splitlines())}
    old: dict[str, Place] = {}
    unified: dict[str, Place] = {}
    for kind, options, root, mount_point in _mounts(mountinfo):
        for names, path in own.items():
            if not path.is_relative_to(root):
                continue  # this mount shows another part of the hierarchy
            folder = mount_point / path.relative_to(root)
            if kind == "cgroup2" and not names:
                above = (parent for parent in folder.parents if parent.is_relative_to(mount_point))
                unified = dict.fromkeys((*CONTROLLERS, FREEZER), Place(2, (folder, *above)))
            elif kind == "cgroup" and set(names.split(",")) <= options:
                old |= {name: Place(1, (folder,)) for name in names.split(",") if name in CONTROLLERS}
    return unified | old


def _mounts(mountinfo: str) -> Iterator[tuple[str, set[str], str, Path]]:
    """Yield type, options, mounted root and mount point of each control group file system."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            yield kind, set(options.split(",")), root, Path(mount_point)


def parents_of(places: dict[str, Place], wanted: tuple[str, ...]) -> Iterator[Folders]:
    """Yield parents for the wanted controllers, nearest first; version 2 has one for all: a process is in one group."""
    if not set(wanted) <= set(places):
        return
    for depth in range(max(len(places[name].parents) for name in wanted)):
        yield {name: (places[name].version, places[name].parents[: depth + 1][-1]) for name in wanted}
