"""Calls of uv, the resolver and installer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

# `pip compile` and `pip install` ask a Python, whichever they work for: this one, or uv looks on PATH for one and
# then downloads one.
THIS_PYTHON = ("--python", sys.executable)


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
        raise UvError(done.stderr.strip() or f"uv {arguments[0]}: exit status {done.returncode}")
    return done.stdout.strip()
