"""Limits an execution environment's memory and CPU, and freezes it, with the kernel's control groups.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html,
https://docs.kernel.org/scheduler/sched-bwc.html
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from dspy_lambda.quotas import MB_PER_CORE
from dspy_lambda_infra.local.cgroup_places import CONTROLLERS, FREEZER, Folders, Place, find_places, parents_of

# The kernel's default of a tenth of a second would leave a small function paused for most of it.
_PERIOD_US = 20_000
_PREFIX = "dspy-lambda"
_numbers = itertools.count()

# Enters each of the first N groups and then executes the command that follows.
_SCRIPT = """
n=$1; shift
while [ "$n" -gt 0 ]; do
  echo 0 > "$1/cgroup.procs" || exit 96
  shift; n=$((n-1))
done
exec "$@"
"""


class Group:
    """One execution environment's control groups.

    Args:
        folders: the groups to create.

    Raises:
        OSError: the groups cannot be created here.
    """

    def __init__(self, folders: Folders, memory_mb: int) -> None:
        self.folders = tuple(dict.fromkeys(folder for _, folder in folders.values()))
        self._cpu = folders.get("cpu")
        self._cores = memory_mb / MB_PER_CORE
        self._freezer = folders[FREEZER][1] / "cgroup.freeze" if FREEZER in folders else None
        try:
            for folder in self.folders:
                folder.mkdir()
            self.freeze(False)
            if memory := folders.get("memory"):
                _limit_memory(*memory, memory_mb * 2**20)
        except OSError:
            self.remove()
            raise

    def command(self, command: list[str]) -> list[str]:
        """Wrap a command so that it runs in these groups from its first instruction."""
        folders = [str(folder) for folder in self.folders]
        return ["sh", "-c", _SCRIPT, "limits", str(len(folders)), *folders, *command]

    def limit_cpu(self) -> None:
        """Start limiting it to its CPU share."""
        if self._cpu is None or self._cores >= len(os.sched_getaffinity(0)):
            return
        version, folder = self._cpu
        quota = int(self._cores * _PERIOD_US)
        try:
            if version == 2:
                _write(folder / "cpu.max", f"{quota} {_PERIOD_US}")
            else:
                _write(folder / "cpu.cfs_period_us", str(_PERIOD_US))
                _write(folder / "cpu.cfs_quota_us", str(quota))
        except OSError as error:
            if error.errno != errno.EINVAL:  # version 1 rejects more than the parent has: the parent's limit is enough
                raise

    def freeze(self, frozen: bool) -> bool:
        """Freeze all processes, or let them continue; return False if this machine's groups cannot do so."""
        if self._freezer is None:
            return False
        _write(self._freezer, str(int(frozen)))
        return True

    def remove(self) -> bool:
        """Remove the groups; return False while one still contains a process that is being killed."""
        left = [folder for folder in self.folders if not _remove(folder)]
        return not left


@dataclass(frozen=True)
class Limits:
    """Creates the groups of execution environments.

    Attributes:
        parents: the folders to create them in.
        unlimited: what is not limited on this machine, and why; or None.
    """

    parents: Folders
    unlimited: str | None

    def group(self, memory_mb: int) -> Group:
        """Return groups with a function's memory and CPU share."""
        return _group(self.parents, memory_mb)

    def sweep(self) -> None:
        """Remove the groups of local Lambdas that were killed and so have no processes left."""
        for _, parent in self.parents.values():
            for folder in parent.glob(f"{_PREFIX}-*-*"):
                if not Path("/proc", folder.name.split("-")[2]).exists():
                    _remove(folder)


@cache
def find() -> Limits:
    """Find out by trying what can be limited on this machine, and how it can be frozen."""
    if sys.platform != "linux":
        return Limits({}, "memory and CPU: control groups require Linux")
    places = find_places(*(Path("/proc/self", name).read_text() for name in ("mountinfo", "cgroup")))
    limits = _find_limits(places)
    return replace(limits, parents=limits.parents | _find_freezer(places, limits.parents))


def _find_limits(places: dict[str, Place]) -> Limits:
    _pass_controllers_on(places)
    problem = ""
    for wanted in (CONTROLLERS, *((name,) for name in CONTROLLERS)):
        for parents in parents_of(places, wanted):
            error = _try(parents)
            if error is None:
                left = " and ".join(name.replace("cpu", "CPU") for name in CONTROLLERS if name not in wanted)
                return Limits(parents, f"{left}: {problem}" if left else None)
            if wanted == CONTROLLERS:
                problem = error
        problem = problem or "no control groups are mounted"
    return Limits({}, f"memory and CPU: {problem}")


def _find_freezer(places: dict[str, Place], limiting: Folders) -> Folders:
    """Return the parent of groups that can be frozen: the limiting ones, or one in a hierarchy beside them."""
    for version, parent in limiting.values():
        if version == 2:
            return {FREEZER: (version, parent)}
    return next((parents for parents in parents_of(places, (FREEZER,)) if _try(parents) is None), {})


def _pass_controllers_on(places: dict[str, Place]) -> None:
    """Delegate controllers where systemd has not: in version 2, only the root can also contain processes."""
    for name, place in places.items():
        if place.version == 2 and name in CONTROLLERS:
            with contextlib.suppress(OSError):
                _write(place.parents[0] / "cgroup.subtree_control", f"+{name}")


def _try(parents: Folders) -> str | None:
    try:
        group = _group(parents, 128)
    except OSError as error:
        return str(error)
    try:
        group.limit_cpu()
        tried = subprocess.run(group.command(["true"]), capture_output=True, text=True)
        return None if tried.returncode == 0 else tried.stderr.strip() or f"exit status {tried.returncode}"
    except OSError as error:
        return str(error)
    finally:
        group.remove()


def _group(parents: Folders, memory_mb: int) -> Group:
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
    return Group({key: (version, parent / name) for key, (version, parent) in parents.items()}, memory_mb)


def _limit_memory(version: int, folder: Path, size: int) -> None:
    """Limit memory without swap, as on Lambda. There is no swap limit file if the kernel does not account for swap."""
    memory, swap, most = (
        ("memory.max", "memory.swap.max", 0)
        if version == 2
        else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", size)
    )
    _write(folder / memory, str(size))
    if (folder / swap).exists():
        _write(folder / swap, str(most))


def _write(file: Path, value: str) -> None:
    if not file.exists():  # writing would raise "Permission denied"
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    file.write_text(value)


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
