"""Calls of uv, the resolver and installer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

# `pip compile` and `pip install` ask a Python, whichever they work for: this one, or uv looks on PATH for one and
# then downloads one.
THIS_PYTHON = ("--python", sys.executable)

_BUILD_IT = "build the wheel yourself and name its folder (--find-links in requirements.txt)"


class UvError(Exception):
    """uv failed; the text is what it said."""


def uv(*arguments: str, project: Path | None = None) -> str:
    """Run uv with these arguments; its standard output.

    Args:
        project: whose settings (`uv.toml`, `[tool.uv]`) hold; else the working directory's.

    Raises:
        UvError: with what it said.
    """
    command = [find_uv_bin(), *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UvError(without_user(done.stderr.strip()) or f"uv {arguments[0]}: exit status {done.returncode}")
    return done.stdout.strip()


def without_user(text: str) -> str:
    """A text whose addresses have neither a user nor a password: either may be a token."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def without_wheel(said: str, target: str) -> str | None:
    """What to say where uv finds no wheel of a distribution for a target; None where it said something else."""
    if "Building source distributions is disabled" in said:
        return "pyproject.toml computes its dependencies, which runs its build backend; list all of them in the file"
    if built := re.search(r"Building source distributions for `(.+?)` is disabled", said):
        return f"{built[1]} is not a wheel, and building one runs its setup.py; {_BUILD_IT}.\n{said}"
    if not re.search(r"no (usable )?wheels?\b|no source distribution", said, re.IGNORECASE):
        return None
    named = re.search(r"\b[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", said)
    return (
        f"{named[0] if named else 'a requirement'} has no wheel for {target}; take a version that has, another "
        f"architecture or runtime; or {_BUILD_IT}.\n{said}"
    )
