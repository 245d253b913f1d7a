"""Builds a Lambda base image from the machine's own files, for machines that cannot pull the real one.

It has what the real image has and functions rely on: CPython in /var/lang, the runtime client and boto3 in
/var/runtime, a shell, and the entry point that starts the runtime interface emulator unless a runtime API is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.sam.docker import NoDocker, install

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "dev.txt"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Large and useless in a function. Of the interpreter's packages only pip is included, as in the real image.
PRUNED = re.compile(
    r"/(test|idlelib|tkinter|turtledemo|ensurepip|config-[^/]+|site-packages/(?!pip($|[-/]))[^/]+)($|/)"
    r"|/_tkinter\.|\.opt-\d\.pyc$"
)
# Libraries that compiled packages may link to although the interpreter does not (pthread, dl, rt, util: glibc stubs).
LIBRARIES = ("stdc++.so.6", "gcc_s.so.1", "pthread.so.0", "dl.so.2", "rt.so.1", "util.so.1", "nss_dns.so.2")
TEXTS = {
    "lambda-entrypoint.sh": """#!/bin/sh
export _HANDLER="${1:?the first argument must be the handler}"
[ -n "$AWS_LAMBDA_RUNTIME_API" ] || exec /usr/local/bin/aws-lambda-rie /var/runtime/bootstrap
exec /var/runtime/bootstrap
""",
    "var/runtime/bootstrap": """#!/bin/sh
export PYTHONPATH="$LAMBDA_TASK_ROOT:/opt/python:$LAMBDA_RUNTIME_DIR"
exec python -m awslambdaric "$_HANDLER"
""",
    "var/lang/bin/pip": '#!/bin/sh\nexec python -m pip "$@"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# Every loader searches lib even without LD_LIBRARY_PATH, which a function's child processes may lack.
LINKS = {"lib": "lib64", "usr/bin": "../bin"}
CONFIG = (
    "ENV LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime LANG=en_US.UTF-8 TZ=:UTC",
    "ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "ENV LD_LIBRARY_PATH=/var/lang/lib:/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "WORKDIR /var/task",
    'ENTRYPOINT ["/lambda-entrypoint.sh"]',
)


class NoBaseImage(NoDocker):
    """The base image cannot be built, even if there is an engine; the text says what is missing."""


def build(python: str, tag: str | None = None) -> str:
    """Load the image for this Python version ("3.13") into the engine, unless it exists, and return its name.

    Each version has its own repository, because SAM names the image it derives `<repository>:rapid-<architecture>`.
    """
    tag = tag or f"local/lambda-python{python}:latest"
    executable, stdlib, certificates = interpreter(python)
    rie = emulator()
    inputs = [Path(__file__), LOCK, executable, rie]
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in inputs)).hexdigest()
    if _run("docker", "image", "ls", "--quiet", "--filter", f"label=inputs={digest}", tag):
        return tag
    install("busybox", "busybox-static")
    busybox = Path(shutil.which("busybox") or "")
    with tempfile.TemporaryDirectory() as folder:
        runtime, archive = Path(folder, "runtime"), Path(folder, "image.tar")
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
        packages = ("--constraint", str(LOCK), "awslambdaric", "boto3")
        _run(uv, "pip", "install", "--quiet", "--python", str(executable), "--target", str(runtime), *packages)
        with tarfile.open(archive, "w", dereference=True) as tar:
            for name in ("opt", "tmp", "root", "var/task"):
                _add(tar, name, mode=0o1777 if name == "tmp" else 0o755, type=tarfile.DIRTYPE)
            for name, text in TEXTS.items():
                _add(tar, name, text.encode())
            _tree(tar, executable, f"var/lang/bin/python{python}")
            _tree(tar, stdlib, f"var/lang/lib/python{python}")
            _tree(tar, runtime, "var/runtime")
            _tree(tar, rie, "usr/local/bin/aws-lambda-rie")
            _tree(tar, busybox, "bin/busybox")
            for name in {"etc/pki/tls/certs/ca-bundle.crt", certificates.lstrip("/")}:
                _tree(tar, CERTIFICATES, name)
            modules = [(top, path) for top in (stdlib, runtime) for path in top.rglob("*.so")]
            kept = [path for top, path in modules if not PRUNED.search(f"/{path.relative_to(top)}")]
            for library in _libraries([executable, busybox, *kept]):
                _tree(tar, library, f"lib64/{library.name}")
            applets = {f"bin/{name}": "busybox" for name in _run(str(busybox), "--list").split() if name != "busybox"}
            names = {f"var/lang/bin/{name}": f"python{python}" for name in ("python", "python3")}
            for name, target in {**applets, **names, **LINKS}.items():
                _add(tar, name, type=tarfile.SYMTYPE, linkname=target)
        changes = [f"--change={change}" for change in (*CONFIG, f"LABEL inputs={digest}")]
        _run("docker", "import", *changes, str(archive), tag)
    # SAM would otherwise keep using the image that it derived from an earlier one.
    derived = f"{tag.rpartition(':')[0]}:{rie.name.replace('aws-lambda-rie', 'rapid')}"
    subprocess.run(["docker", "image", "rm", "--force", derived], capture_output=True, check=False)
    return tag


def interpreter(python: str) -> tuple[Path, Path, str]:
    """Find an interpreter of this version, its standard library, and its OpenSSL certificate path.

    Each candidate is started: a shim on PATH may have the name and yet no interpreter behind it.
    """
    pyenv, uv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser(), Path("~/.local/share/uv").expanduser()
    found = sorted([*pyenv.glob(f"versions/{python}.*/bin/python"), *uv.glob(f"python/cpython-{python}.*/bin/python3")])
    probe = """import json, os, ssl, sys, sysconfig
executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print(json.dumps([executable, sysconfig.get_path("stdlib"), ssl.get_default_verify_paths().openssl_cafile]))"""
    for candidate in (*found, shutil.which(f"python{python}")):
        if candidate:
            run = subprocess.run([candidate, "-I", "-c", probe], capture_output=True, text=True, check=False)
            if run.returncode == 0:
                executable, stdlib, certificates = json.loads(run.stdout)
                return Path(executable), Path(stdlib), certificates
    raise NoBaseImage(f"no Python {python} is installed: none on PATH, none of pyenv's, none of uv's")


def emulator() -> Path:
    """Return the runtime interface emulator, which is part of the SAM CLI."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    for found in (ROOT / ".venv-tools").glob(f"lib/*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"):
        return found
    raise NoBaseImage("the SAM CLI, which brings the runtime interface emulator, is not installed (make tools)")


def _libraries(files: Iterable[Path]) -> Iterable[Path]:
    """Return the shared libraries and the loader that these files need, and the available ones of LIBRARIES."""
    known = re.findall(r"^\s+lib(\S+) \(libc6,.*=> (\S+)$", _run("/sbin/ldconfig", "-p"), re.MULTILINE)
    extra = [path for name, path in known if name in LIBRARIES]
    # Exits with 1 for a static file, but still reads all others.
    ldd = subprocess.run(["ldd", *map(str, files), *extra], capture_output=True, text=True, check=False)
    needed = re.findall(r"^\s+(?:\S+ => )?(/\S+) \(", ldd.stdout, re.MULTILINE)
    return {Path(path).name: Path(path) for path in (*extra, *needed)}.values()


def _tree(tar: tarfile.TarFile, source: Path, name: str) -> None:
    """Add a file, or a pruned folder, owned by root."""

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return None if PRUNED.search(f"/{member.name}") else member

    tar.add(source, name, filter=keep)


def _add(tar: tarfile.TarFile, name: str, content: bytes = b"", mode: int = 0o755, **more: str | bytes) -> None:
    """Add content that is not in a file here."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    for attribute, value in more.items():
        setattr(member, attribute, value)
    tar.addfile(member, io.BytesIO(content))


def _run(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoBaseImage(f"{command[0]} is not installed") from None
    if run.returncode:
        raise NoBaseImage(f"`{' '.join(command[:3])}` fails: {run.stderr.strip()}")
    return run.stdout
