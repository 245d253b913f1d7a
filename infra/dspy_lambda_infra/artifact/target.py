"""The platform that an artifact is built for."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dspy_lambda_infra.artifact.uv import UvError, uv

TASK_ROOT = "/var/task"
# The runtimes' glibc: python3.11 runs on Amazon Linux 2 (2.26), 3.12 and later on Amazon Linux 2023 (2.34).
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
_GLIBC = {"3.11": "2_26", "3.12": "2_34", "3.13": "2_34", "3.14": "2_34"}
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Target:
    """A runtime's Python (`3.13`) and architecture (`x86_64` or `arm64`)."""

    python: str
    architecture: str

    @property
    def platform(self) -> str:
        """Return uv's name for the platform."""
        manylinux = "manylinux2014" if self.python == "3.11" else f"manylinux_{_GLIBC[self.python]}"
        return f"{_MACHINES[self.architecture]}-{manylinux}"

    @property
    def markers(self) -> dict[str, str]:
        """Return the platform's environment markers (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": _MACHINES[self.architecture],
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def interpreter(self) -> str | None:
        """Find a CPython of this version on this machine, or None. Bytecode is the same on every platform."""
        if sys.version_info[:2] == tuple(int(part) for part in self.python.split(".")):
            return sys.executable
        return next((path for path in self._candidates() if _is_python(path, self.python)), None)

    def _candidates(self) -> Iterator[str]:
        with contextlib.suppress(UvError):
            yield uv("python", "find", "--no-python-downloads", "--no-project", f"cpython@{self.python}")
        # pyenv's versions need not be on PATH; its shims are, even for inactive versions.
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        yield from (str(path) for path in sorted(pyenv.glob(f"versions/{self.python}*/bin/python{self.python}")))
        yield from filter(None, [shutil.which(f"python{self.python}")])


def _is_python(path: str, version: str) -> bool:
    code = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    return subprocess.run([path, "-c", code], capture_output=True, check=False).returncode == 0
