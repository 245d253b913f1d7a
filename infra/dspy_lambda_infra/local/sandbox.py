"""Restricts a function as Lambda does: a read-only task root, and (on request) no network."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

# Bind-mounts each of the first N folders over itself, so that it stays writable within a read-only one. Bind-mounts
# each of the next N folders read-only over itself, enters the working directory again (the old one would still be the
# writable mount), and runs the command that follows. The shell remains as the namespace's first process, which no
# signal from its own namespace can kill: a program may kill itself. `unshare` 2.38 exits with 1 when that process is
# killed, so the shell reports how the command ended; the message it would print ("Killed") is suppressed.
_SCRIPT = """
n=$1; shift
while [ "$n" -gt 0 ]; do
  mount --bind "$1" "$1" || exit 97
  shift; n=$((n-1))
done
n=$1; shift
while [ "$n" -gt 0 ]; do
  mount --rbind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 97
  shift; n=$((n-1))
done
cd "$(pwd)" || exit 97
exec 3>&2 2>/dev/null
"$@" 2>&3 3>&-
exit $?
"""
# Where the SDK stores renewed tokens of `aws sso login` or `aws login`; if it cannot, the renewal fails.
_TOKENS = (".aws/sso/cache", ".aws/login/cache")
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def read_only(command: list[str], folders: list[Path]) -> list[str]:
    """Wrap a command in its own namespaces: it cannot write to these folders, and none of its processes outlives it.

    Only the developer's AWS tokens can still be renewed in them.
    """
    tokens = [folder for folder in (Path.home() / name for name in _TOKENS) if folder.is_dir()]
    counted = [word for some in (tokens, folders) for word in (str(len(some)), *map(str, some))]
    return [*_unshare(), "sh", "-c", _SCRIPT, "sandbox", *counted, *command]


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    # A process that a program starts in its own session would survive killing the group, but not killing the
    # namespace's first process.
    own_processes = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *user, *own_processes, "--mount", "--propagation", "private"]


@cache
def why_not_read_only(folders: tuple[Path, ...]) -> str | None:
    """Find out by trying whether folders can be made read-only on this machine; return the reason if not, or None."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "requires Linux and `unshare` from util-linux"
    probe = f"! touch {folders[0]}/.dspy-lambda-probe 2>/dev/null"
    tried = subprocess.run(read_only(["sh", "-c", probe], list(folders)), capture_output=True, text=True)
    if tried.returncode == 0:
        return None
    (folders[0] / ".dspy-lambda-probe").unlink(missing_ok=True)
    return f"`unshare --mount` failed: {tried.stderr.strip() or tried.returncode}"


def die_with_parent(command: list[str]) -> list[str]:
    """Wrap a command so that the kernel kills it when this process dies without having stopped it (Linux only)."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command


def loopback_only() -> str | None:
    """Cut off this process and its children from every network except loopback; return the reason if that fails.

    Call it before starting any thread.
    """
    if sys.platform != "linux":
        return "requires Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER) != 0:
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    if user != 0:
        # Root within the new user namespace, which later namespaces require; outside it, still the same user.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    # A new network namespace has a loopback interface that is down.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        (current,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", current | _IFF_UP))
    return None
