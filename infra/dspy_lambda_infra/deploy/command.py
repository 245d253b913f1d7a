"""`dspy-lambda deploy`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.command import build_all
from dspy_lambda_infra.checks import check
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.deploy.account import Account, AccountUnavailable, fetch_account
from dspy_lambda_infra.deploy.changes import changes, parameter_changes
from dspy_lambda_infra.deploy.configuration import configuration_changes
from dspy_lambda_infra.deploy.keys import how_to_put
from dspy_lambda_infra.deploy.page import page
from dspy_lambda_infra.deploy.parameters import (
    check_parameters,
    choose_parameters,
    choose_stage,
    reserved_by,
    reserves_concurrency,
)
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.project import Project, load_project, say_what_runs
from dspy_lambda_infra.stack_size import check_size
from dspy_lambda_infra.template import render, write
from dspy_lambda_infra.template.metadata import deployed_config
from dspy_lambda_infra.template.sam_files import stack_name, write_sam_files


def run_deploy(options: argparse.Namespace) -> int:
    """Print the page; without `--dry-run` write the template, build and deploy."""
    folder = options.template.parent
    if not folder.is_dir():
        raise ConfigError(f"--template {options.template}: there is no folder {folder}; make it first.")
    say_what_runs(options.project)
    project = load_project(options.project)
    project.require_loaded()
    stack = options.stack_name or stack_name(project, choose_stage(options, None))
    text = render(project, folder)
    account, why = _account(options, project, stack)
    available = account.unreserved + reserved_by(account) if account else None
    check(project, available if reserves_concurrency(options, account) else 0)
    parameters = choose_parameters(options, project, account)
    check_size(project, text)
    translated = translate(text, parameters, account.region if account else options.region or "us-east-1")
    check_parameters(parameters, translated)
    print(page(project, stack, account, why, parameters))
    for warning in config_warnings(project):
        print(f"warning: {warning}")
    print("\n".join(_comparison(account, translated, parameters)))
    missing = account.missing_keys if account else []
    for place in missing:
        print(f"\n{how_to_put(place)}")
    if options.dry_run:
        return 1 if missing else 0
    if account is None or missing:
        reason = why if account is None else "functions without their keys would fail at init"
        print(f"dspy-lambda: not deployed: {reason}", file=sys.stderr)
        return 1
    return _deploy(options, project, stack, account, text, parameters)


def _account(options: argparse.Namespace, project: Project, stack: str) -> tuple[Account | None, str]:
    """The account; or None and why."""

    def places(deployed_stage: str | None) -> set[str]:
        stage = choose_stage(options, deployed_stage)
        found = {place for function in project.functions.values() for place in project.secrets(function).values()}
        return {place.replace("${Stage}", stage) for place in found}

    try:
        return fetch_account(options.region, stack, places), ""
    except AccountUnavailable as error:
        return None, str(error)


def _comparison(account: Account | None, translated: dict[str, Any], parameters: dict[str, str]) -> list[str]:
    """What would change: parameters, configuration, resources."""
    deployed, before = (account.deployed, account.parameters) if account else (None, {})
    after = {**before, **parameters}  # what is not named keeps its value
    found: dict[str, list[str]] = {}
    if deployed is not None:
        old, new = deployed_config(deployed), deployed_config(translated)
        found["parameters"] = parameter_changes(before, after)
        found["configuration"] = configuration_changes(old, new) if old is not None and new is not None else []
    note = "" if account else " (as for a new stack: the account was not read)"
    found[f"change set{note}"] = changes(deployed, translated, before, after)
    found = {title: lines for title, lines in found.items() if lines}
    if not found:
        found = {"change set": ["no parameter, configuration or resource; only functions whose code is another"]}
    return [line for title, lines in found.items() for line in ("", title, *(f"  {line}" for line in lines))]


def _deploy(
    options: argparse.Namespace, project: Project, stack: str, account: Account, text: str, parameters: dict[str, str]
) -> int:
    sam = shutil.which("sam")
    if sam is None:
        raise ConfigError("the SAM CLI is not on PATH; install it: pip install aws-sam-cli")
    folder: Path = options.template.parent
    write(text, options.template)
    write_sam_files(project, folder, lambda line: print(line, file=sys.stderr))
    if project.config.lambda_.package_type == "Image":
        build_all(project, folder / "dist")
    overrides = [f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()]
    confirm = ["--no-confirm-changeset"] if options.yes else ["--confirm-changeset"]
    where = ["--stack-name", stack, "--region", account.region]
    commands = [
        [sam, "build", "--template", str(options.template.resolve())],
        # Where artifacts go and what capabilities are granted is in samconfig.toml, which may be the user's.
        [sam, "deploy", *where, "--no-fail-on-empty-changeset", *confirm, "--parameter-overrides", *overrides],
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    for command in commands:
        print(f"\n$ {' '.join(command)}", flush=True)
        if status := subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
            return 1 if status != 130 else status
    return 0
