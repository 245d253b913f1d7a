"""The `dspy-lambda` command: a file per command, each with its options and the call of what does the work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
PROGRAM = "dspy-lambda"
# What the extra `cli` of pyproject.toml brings, by the names that are imported.
EXTRA_MODULES = {
    *("aiohttp", "awslambdaric", "boto3", "botocore", "dotenv", "flask", "moto", "packaging", "rich"),
    *("samtranslator", "typer", "uv", "uvicorn", "watchfiles", "werkzeug"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 done, 1 failed, 2 usage or configuration, 130 Ctrl-C.

    Raises:
        SystemExit: `--version` (0), or arguments that cannot be used (2).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:  # works without the extra
        show_version()
    try:
        return _run(words)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        print(f'{PROGRAM}: this needs the extra: pip install "dspy-lambda[cli]"', file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # while a command's code is being imported
        return EXIT_INTERRUPTED


def show_version() -> NoReturn:
    """Print the version, DSPy's and Python's, and exit."""
    from importlib.metadata import version
    from platform import python_version

    from dspy_lambda import __version__

    print(f"{PROGRAM} {__version__} (DSPy {version('dspy')}, Python {python_version()})")
    raise SystemExit(0)


def _run(words: list[str]) -> int:
    import typer

    from dspy_lambda_infra.cli.application import app

    try:
        # `obj` is what `--reload` starts again.
        status: int = typer.main.get_command(app).main(words, prog_name=PROGRAM, standalone_mode=False, obj=words)
    except typer.TyperException as error:
        # typer's own form takes four lines.
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        print(f"{path}: {message} (help: {path} -h)", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        from dspy_lambda.errors import ConfigError  # `--help` does without

        if not isinstance(error, ConfigError):
            raise
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USAGE
    return status


def __getattr__(name: str) -> Any:
    """`app`, the typer application, which `--version` does without."""
    if name == "app":
        from dspy_lambda_infra.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
