"""Runs uv, the resolver and installer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

# `pip compile` and `pip install` query a Python, whatever the target: name this one, or uv searches PATH for one and
# may download one.
THIS_PYTHON = ("--python", sys.executable)

_BUILD_IT = "build the wheel yourself and name its folder (--find-links in requirements.txt)"


class UvError(Exception):
    """uv failed; the text is its output."""


def uv(*arguments: str, project: Path | None = None) -> str:
    """Run uv with these arguments and return its standard output.

    Args:
        project: the folder whose settings (`uv.toml`, `[tool.uv]`) apply; default: the working directory.

    Raises:
        UvError: uv failed; contains its output.
    """
    command = [find_uv_bin(), *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UvError(without_user(done.stderr.strip()) or f"uv {arguments[0]}: exit status {done.returncode}")
    return done.stdout.strip()


def without_user(text: str) -> str:
    """Return a text with users and passwords removed from its URLs: either may be a token."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def explain_missing_wheel(said: str, target: str) -> str | None:
    """Return the message if uv found no wheel for a target; None if uv failed for another reason."""
    if "Building source distributions is disabled" in said:
        return "pyproject.toml computes its dependencies, which runs its build backend; list them all statically"
    if built := re.search(r"Building source distributions for `(.+?)` is disabled", said):
        return f"{built[1]} is not a wheel, and building one runs its setup.py; {_BUILD_IT}.\n{said}"
    if not re.search(r"no (usable )?wheels?\b|no source distribution", said, re.IGNORECASE):
        return None
    named = re.search(r"\b[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", said)
    return (
        f"{named[0] if named else 'a requirement'} has no wheel for {target}; choose a version that has one, another "
        f"architecture or another runtime; or {_BUILD_IT}.\n{said}"
    )
