"""A Docker engine for the tests that need a real one: the machine's, or a temporary one of our own.

Our own engine is to leave no trace: it lives in its own process and mount namespaces, so that the kernel ends every
process and mount of it with the first, whatever kills the tests; what it does to the firewall is taken back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

START_SECONDS = 60
STOP_SECONDS = 20
# setpriv: when the tests are killed, so is unshare; --kill-child: when unshare is killed, so are all its descendants.
CONFINED = ["setpriv", "--pdeathsig", "KILL"]
CONFINED += ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class NoDocker(Exception):
    """There is no Docker engine, and none can be started; the text says what is missing."""


@contextmanager
def engine() -> Iterator[None]:
    """Ensure that `docker`, and every client that reads DOCKER_HOST, finds an engine.

    A server on this machine that containers call must listen on 0.0.0.0; they find it as host.docker.internal
    if started with `--add-host host.docker.internal:host-gateway`, which `sam local` knows as well.
    """
    with ExitStack() as stack:
        if complaint := _complaint():
            if os.geteuid() != 0:
                raise NoDocker(f"no Docker engine answers ({complaint}), and only root can start one")
            # One at a time: engines of several test processes would share the bridge and its addresses.
            lock = stack.enter_context((Path(tempfile.gettempdir()) / "dspy-lambda-docker.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            for program, package in (("dockerd", "docker.io"), ("docker", "docker-cli"), ("iptables", "iptables")):
                install(program, package)
            if _complaint():  # none if the package has started it as a service
                stack.enter_context(_own())
        yield


def install(program: str, package: str) -> None:
    """Ensure that this program is on PATH; as root on Debian, by installing the package."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoDocker(f"{program} is not installed (package {package}); only root on Debian installs it automatically")
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", package]):
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if run.returncode:
            raise NoDocker(f"{program} is not installed, and `{' '.join(command)}` fails: {_last(run.stderr)}")


def _complaint() -> str:
    """Return the reason why no engine answers; empty if one does."""
    command = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False)
    except FileNotFoundError:
        return "docker is not installed"
    except subprocess.TimeoutExpired:
        return f"nothing within {STOP_SECONDS} s"
    return "" if run.returncode == 0 and run.stdout.strip() else _last(run.stderr)


@contextmanager
def _own() -> Iterator[None]:
    """Start an engine in a temporary folder, and set DOCKER_HOST to it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True)))
        flags = stack.enter_context(_firewall())
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        # The engine chooses the storage driver: overlay2, or vfs if the folder's file system does not support it.
        command = [*CONFINED, *(["docker-init", "--"] if shutil.which("docker-init") else []), "dockerd", *flags]
        command += [f"--host={os.environ['DOCKER_HOST']}", f"--data-root={folder}/data"]
        command += [f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        log = folder / "log"
        with log.open("w") as output:
            # In its own session, so that it is not interrupted together with the tests.
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        stack.callback(_stop, process)
        deadline = time.monotonic() + START_SECONDS
        while _complaint():
            if process.poll() is not None:
                raise NoDocker(f"dockerd does not start here: {_last(log.read_text())}")
            if time.monotonic() > deadline:
                raise NoDocker(f"dockerd does not answer within {START_SECONDS} s: {_last(log.read_text())}")
            time.sleep(0.1)
        yield


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the engine and kill its containers, which it would otherwise give 10 s each to stop."""
    with suppress(subprocess.TimeoutExpired, OSError):
        if containers := _output("docker", "ps", "--all", "--quiet").split():
            _output("docker", "rm", "--force", "--volumes", *containers)
        # unshare itself ignores SIGTERM, but exits with its child.
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        process.wait(STOP_SECONDS)
    process.kill()
    process.wait()


@contextmanager
def _firewall() -> Iterator[list[str]]:
    """Yield the engine's network flags; afterwards restore bridge, packet filter and forwarding.

    Without a packet filter, containers reach this machine and are reached on published ports all the same, through
    the engine's own proxy; they just do not reach the network beyond.
    """
    # Listing a table creates it if it does not exist: only saved tables are restored.
    listed = [subprocess.run(["iptables", "-t", table, "-S"], capture_output=True) for table in ("filter", "nat")]
    filtering = all(table.returncode == 0 for table in listed)
    rules, forwarding = _output("iptables-save") if filtering else "", FORWARDING.read_text()
    bridged = Path("/sys/class/net/docker0").exists()
    try:
        yield ["--ip6tables=false"] if filtering else ["--iptables=false", "--ip-masq=false", "--ip-forward=false"]
    finally:
        if filtering:
            subprocess.run(["iptables-restore"], input=rules, text=True, check=False)
            FORWARDING.write_text(forwarding)
        if not bridged and shutil.which("ip"):
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False).stdout


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
