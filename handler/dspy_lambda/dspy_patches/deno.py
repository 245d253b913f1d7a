"""Deno, in which DSPy's `PythonInterpreter` runs code that a model wrote: where it is, and what it inherits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from dspy_lambda.dspy_patches.patch import Name, Patch, apply_patch

_INTERPRETER = "dspy.primitives.python_interpreter"
# What Deno itself needs: programs, folders, certificates and proxies for the files that it fetches.
_KEPT = frozenset({
    "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ",
    "XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
})  # fmt: skip
_KEPT_PREFIXES = ("DENO_", "NPM_CONFIG_")
_ALLOWED = "--allow-env="


def _limited(environment: Mapping[str, str] | None, command: Any) -> dict[str, str]:
    """Return the variables that Deno needs, and those that the program allows with `enable_env_vars`."""
    options = [part for part in command if isinstance(part, str) and part.startswith(_ALLOWED)]
    allowed = {name for part in options for name in part.removeprefix(_ALLOWED).split(",")}
    given = os.environ if environment is None else environment
    return {
        name: value
        for name, value in given.items()
        if name in _KEPT or name in allowed or name.startswith(_KEPT_PREFIXES)
    }


def _without_credentials(module: Any) -> Any:
    """Return `subprocess` for DSPy's interpreter, whose children inherit neither keys nor the role's credentials."""

    def popen(command: Any, *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[Any]:
        started: subprocess.Popen[Any] = module.Popen(command, env=_limited(env, command), **options)
        return started

    def run(command: Any, *, env: Mapping[str, str] | None = None, **options: Any) -> Any:
        return module.run(command, env=_limited(env, command), **options)

    return SimpleNamespace(**{**vars(module), "Popen": popen, "run": run})


DENO_ENVIRONMENT = Patch(
    "no credentials for Deno",
    "DSPy passes all variables to Deno, also the role's credentials and the models' keys; only Deno's permissions "
    "would keep them from code that a model wrote",
    (
        Name(_INTERPRETER, "PythonInterpreter._spawn_process", "self", attributes="subprocess Popen"),
        Name(_INTERPRETER, "subprocess", wrap=_without_credentials),
    ),
)
DENO_COMMAND = Patch(
    "where Deno is",
    "a program that needs Deno fails when it is loaded, instead of at a later step of a paid call",
    (Name(_INTERPRETER, "_find_deno_executable", ""),),
)


def deno_command() -> str | None:
    """Return the command that DSPy starts Deno with, a path or a name that need not exist; None if that is unknown."""
    if apply_patch(DENO_COMMAND):
        return None
    from dspy.primitives.python_interpreter import _find_deno_executable

    command: str = _find_deno_executable()
    return command
