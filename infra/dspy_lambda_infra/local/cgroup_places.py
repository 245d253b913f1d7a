"""Where this process may make control groups: the hierarchies that are mounted, and its own groups in them.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CONTROLLERS = ("memory", "cpu")
# By controller: the version of its control groups, 1 or 2, and a folder.
Folders = dict[str, tuple[int, Path]]


@dataclass(frozen=True)
class Place:
    """Where a controller's groups may be made.

    Attributes:
        version: of the control groups, 1 or 2.
        parents: this process's own group; with version 2 also those above it, because there a group either holds
            processes or passes controllers on.
    """

    version: int
    parents: tuple[Path, ...]


def find_places(mountinfo: str, own_groups: str) -> dict[str, Place]:
    """By controller, from the texts of /proc/self/mountinfo and /proc/self/cgroup.

    A controller that a hierarchy of version 1 has is not in that of version 2.
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
                unified = dict.fromkeys(CONTROLLERS, Place(2, (folder, *above)))
            elif kind == "cgroup" and set(names.split(",")) <= options:
                old |= {name: Place(1, (folder,)) for name in names.split(",") if name in CONTROLLERS}
    return unified | old


def _mounts(mountinfo: str) -> Iterator[tuple[str, set[str], str, Path]]:
    """Type, options, mounted root and mount point of each file system of control groups."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            yield kind, set(options.split(",")), root, Path(mount_point)


def parents_of(places: dict[str, Place], wanted: tuple[str, ...]) -> Iterator[Folders]:
    """Parents for the wanted controllers, nearest first: one for those of version 2, as a process is in one group."""
    if not set(wanted) <= set(places):
        return
    for depth in range(max(len(places[name].parents) for name in wanted)):
        yield {name: (places[name].version, places[name].parents[: depth + 1][-1]) for name in wanted}
