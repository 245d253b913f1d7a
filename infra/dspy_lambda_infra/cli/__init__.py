"""The `dspy-lambda` command: one file per command, which declares its options and calls the implementation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dspy_lambda_infra.cli.version import PROGRAM, show_version

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
# Import names of what the `cli` extra in pyproject.toml installs.
EXTRA_MODULES = {
    *("aiohttp", "awslambdaric", "boto3", "botocore", "dotenv", "flask", "moto", "packaging", "pathspec"),
    *("rich", "samtranslator", "typer", "uv", "uvicorn", "watchfiles", "werkzeug"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 success, 1 failure, 2 usage or configuration error, 130 Ctrl-C.

    Raises:
        SystemExit: `--version` (0), or invalid arguments (2).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:  # works without the extra
        show_version()
    try:
        return _run(words)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        print(f'{PROGRAM}: this command requires the cli extra: pip install "dspy-lambda[cli]"', file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # while a command's code is being imported
        return EXIT_INTERRUPTED


def _run(words: list[str]) -> int:
    import typer

    from dspy_lambda_infra.cli.application import app

    group = typer.main.get_command(app)
    try:
        # `obj` is the command line that `--reload` restarts.
        status: int = group.main(words, prog_name=PROGRAM, standalone_mode=False, obj=words)
    except typer.TyperException as error:
        # typer's own format takes four lines.
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        print(f"{path}: {message} (help: {path} -h)", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        from dspy_lambda.errors import ConfigError  # not imported for `--help`

        if not isinstance(error, ConfigError):
            raise
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USAGE
    return status


def __getattr__(name: str) -> Any:
    """Load `app`, the typer application, on first use: `--version` does not need it."""
    if name == "app":
        from dspy_lambda_infra.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
