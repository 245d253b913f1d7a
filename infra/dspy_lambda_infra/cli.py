"""The `dspy-lambda` command."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from dspy_lambda import __version__
from dspy_lambda.errors import ConfigError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
# What the extra `cli` of pyproject.toml brings, by the names that are imported.
EXTRA_MODULES = {
    *("aiohttp", "awslambdaric", "boto3", "botocore", "dotenv", "flask", "moto"),
    *("packaging", "samtranslator", "uv", "uvicorn", "werkzeug"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 done, 1 failed, 2 usage or configuration, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ConfigError as error:
        print(f"dspy-lambda: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        print(f"dspy-lambda: needs {error.name}; install the command: pip install 'dspy-lambda[cli]'", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read has read enough; nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dspy-lambda", description="DSPy programs as AWS Lambda functions.")
    parser.add_argument("--version", action="version", version=_versions())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    template = commands.add_parser("template", help="write the SAM template of a project")
    _add_project(template)
    template.add_argument("--output", type=Path, default=Path("template.yaml"), help="the file, or - for stdout")
    template.set_defaults(run=_template)

    build = commands.add_parser("build", help="build one function's artifact, or all of them")
    _add_project(build)
    build.add_argument("--function", metavar="NAME", help="a program, or its logical id (default: all)")
    build.add_argument("--python", choices=("3.11", "3.12", "3.13", "3.14"), help="of the runtime (default: config)")
    build.add_argument("--architecture", choices=("x86_64", "arm64"), help="(default: config)")
    build.add_argument(
        "--output", type=Path, metavar="DIR", help="of the one function; of all: DIR/<logical id> (default: dist)"
    )
    build.set_defaults(run=_build)

    local = commands.add_parser("local", help="run a project's functions, its API and its queues on this machine")
    _add_project(local)
    _add_local(local)
    local.add_argument("--port", type=_number(0, 65535), default=3000, help="of the HTTP front; 0 picks a free one")
    local.add_argument("--api", choices=("rest", "http", "url"), help="which events the front makes (default: config)")
    local.add_argument(
        "--visibility-timeout", type=_number(1, 43_200), metavar="SECONDS", help="of the queues (default: 6 x timeout)"
    )
    _add_limits(local)
    local.set_defaults(run=_local)

    serve = commands.add_parser("serve", help="serve all programs from one process, many requests at once")
    _add_project(serve)
    _add_local(serve)
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    serve.add_argument("--port", type=_number(0, 65535), default=8000, help="0 picks a free one")
    serve.add_argument("--dev", action="store_true", help="answer with the texts of exceptions; on loopback only")
    serve.set_defaults(run=_serve)

    deploy = commands.add_parser("deploy", help="say what a deployment would do and cost, then do it with the SAM CLI")
    _add_project(deploy)
    deploy.add_argument("--dry-run", action="store_true", help="only say it: nothing is written, built or uploaded")
    deploy.add_argument("--template", type=Path, default=Path("template.yaml"), help="the template's file")
    deploy.add_argument("--stack-name", metavar="NAME", help="(default: <app_id>-<stage>)")
    deploy.add_argument("--region", help="(default: of the AWS profile)")
    deploy.add_argument("--stage", type=_stage, help="(default: of the stack --stack-name, else prod)")
    deploy.add_argument("--alarm-email", type=_word, metavar="ADDRESS", help="where alarms go (default: as deployed)")
    deploy.add_argument("--reserve-concurrency", choices=("true", "false"), help="(default: as deployed)")
    deploy.add_argument(
        "--api-access-log",
        choices=("none", "account-role", "new-role"),
        help="of a REST API (default: as deployed, else with the account's role if it has one)",
    )
    deploy.add_argument(
        "--parameter", action="append", type=_pair, default=[], metavar="KEY=VALUE", help="of template.extra.yaml's own"
    )
    deploy.add_argument("--secrets-version", type=_word, metavar="WORD", help="another one, after a rotation")
    deploy.add_argument("--yes", action="store_true", help="do not ask before the change set is executed")
    deploy.set_defaults(run=_deploy)

    limits = commands.add_parser("limits", help="hold the project's concurrency against each model's quota")
    _add_project(limits)
    limits.set_defaults(run=_limits)

    doctor = commands.add_parser("doctor", help="show where a cold start's time goes")
    _add_project(doctor)
    doctor.add_argument("--cold-start", action="store_true", required=True, help="of the built artifacts")
    doctor.add_argument("--function", metavar="NAME", help="a program, or its logical id (default: all)")
    doctor.add_argument("--rounds", type=_number(1, 100), default=7, help="starts of each (default: 7)")
    doctor.set_defaults(run=_doctor)

    invoke = commands.add_parser("invoke", help="run one event through one execution environment")
    invoke.add_argument("program", nargs="?", metavar="PROGRAM", help="its function (default: one that serves all)")
    sent = invoke.add_mutually_exclusive_group(required=True)
    sent.add_argument("--event", metavar="FILE", help="an event of AWS as a JSON file, or - for stdin")
    sent.add_argument("--inputs", metavar="JSON", help="the program's inputs: a JSON object, a file of it, or -")
    _add_project(invoke)
    _add_local(invoke)
    _add_limits(invoke)
    invoke.set_defaults(run=_invoke)
    return parser


def _versions() -> str:
    return f"dspy-lambda {__version__} (DSPy {version('dspy')}, Python {python_version()})"


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return number


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.+@-]+", text):
        raise argparse.ArgumentTypeError("letters, digits and _ . + @ - only")
    return text


def _stage(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text):
        raise argparse.ArgumentTypeError("1 to 32 letters, digits, _ and - only")
    return text


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key.isalnum() or not value or re.search(r"[\s,\"']", value):
        raise argparse.ArgumentTypeError("must be KEY=VALUE, without blanks, commas and quotes")
    return key, value


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", type=Path, default=Path("."), metavar="DIR", help="the DSPy project's folder")


def _add_local(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-server", action="store_true", help="answer all model calls from an embedded server: no key, no cost"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-limits", action="store_true", help="let functions have more than their memory and share of a core"
    )


def _template(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.checks import check
    from dspy_lambda_infra.config_warnings import config_warnings
    from dspy_lambda_infra.cost import monthly_base
    from dspy_lambda_infra.project import load_project, say_what_runs
    from dspy_lambda_infra.stack_size import check_size
    from dspy_lambda_infra.template import render, write
    from dspy_lambda_infra.template.sam_files import write_sam_files

    say_what_runs(options.project)
    project = load_project(options.project)
    check(project)
    to_stdout = str(options.output) == "-"
    text = render(project, Path() if to_stdout else options.output.parent)
    check_size(project, text)
    for warning in config_warnings(project):
        print(f"warning: {warning}", file=sys.stderr)
    if to_stdout:
        sys.stdout.write(text)
    else:
        write(text, options.output)
        try:
            write_sam_files(project, options.output.parent, lambda line: print(line, file=sys.stderr))
        except OSError as error:
            raise ConfigError(f"{options.output.parent}: {error.strerror}.") from None
        print(f"{options.output}: {len(project.function_names)} functions", file=sys.stderr)
    print(
        f"Idle, the stack costs up to {monthly_base(project):.2f} USD a month; "
        "dspy-lambda deploy --dry-run says what calls may cost.",
        file=sys.stderr,
    )
    return 0


def _build(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.artifact.command import run_build

    return run_build(options)


def _local(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.local.command import run_local

    return run_local(options)


def _serve(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.local.command import model_variables
    from dspy_lambda_infra.local.keys import require_keys
    from dspy_lambda_infra.project import load_project, read_dotenv
    from dspy_lambda_infra.serve import run_serve

    project = load_project(options.project)
    own = {**read_dotenv(project.root), **os.environ, "DSPY_LAMBDA_PROJECT": str(project.root)}
    os.environ.update(own)  # programs read theirs when they are called, too
    with model_variables(options.model_server, project) as variables:
        require_keys(project, project.functions, variables)
        os.environ.update(variables)
        os.chdir(project.root)  # as on Lambda
        return run_serve(options, own | variables)


def _deploy(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.deploy.command import run_deploy

    return run_deploy(options)


def _limits(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.limits import report
    from dspy_lambda_infra.project import load_project, say_what_runs

    say_what_runs(options.project)
    project = load_project(options.project)
    text, exceeded = report(project)
    print(text)
    project.require_loaded()
    return EXIT_FAILED if exceeded else 0


def _doctor(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.doctor.command import run_doctor

    return run_doctor(options)


def _invoke(options: argparse.Namespace) -> int:
    from dspy_lambda_infra.local.command import run_invoke

    return run_invoke(options)


if __name__ == "__main__":
    sys.exit(main())
