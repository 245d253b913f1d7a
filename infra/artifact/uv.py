"""Calls of uv, the resolver and installer."""

from __future__ import annotations

import subprocess

from uv import find_uv_bin


class UvError(Exception):
    """uv failed; the text is what it said."""


def uv(*arguments: str) -> str:
    """Run uv with these arguments; its standard output.

    Raises:
        UvError: with what it said.
    """
    done = subprocess.run([find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UvError(done.stderr.strip() or f"uv {arguments[0]}: exit status {done.returncode}")
    return done.stdout.strip()
