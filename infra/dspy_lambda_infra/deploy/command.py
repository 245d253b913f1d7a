"""`dspy-lambda deploy`."""

from __future__ import annotations

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
from dspy_lambda_infra.deploy.keys import store_command
from dspy_lambda_infra.deploy.models import Access, fetch_access
from dspy_lambda_infra.deploy.page import page, page_document
from dspy_lambda_infra.deploy.parameters import (
    HIDDEN,
    Options,
    check_parameters,
    choose_parameters,
    choose_stage,
    hidden_parameters,
    reserved_by,
    reserves_concurrency,
)
from dspy_lambda_infra.deploy.trace_destination import fetch_trace_destination, uses_cloudwatch
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.progress import step, steps
from dspy_lambda_infra.project import Project, announce_imports, load_project
from dspy_lambda_infra.report import report
from dspy_lambda_infra.stack_size import check_size
from dspy_lambda_infra.template import render, write
from dspy_lambda_infra.template.metadata import deployed_config
from dspy_lambda_infra.template.sam_files import stack_name, write_sam_files


def run_deploy(
    root: Path,
    template: Path,
    options: Options,
    *,
    region: str | None = None,
    dry_run: bool = False,
    yes: bool = False,
    as_json: bool = False,
) -> int:
    """Print the page; unless `dry_run`, write the template, build and deploy.

    Args:
        template: the template's file.
        region: None uses the AWS profile's Region.
        yes: whether the SAM CLI executes the change set without asking.
        as_json: print the page as JSON, and the SAM CLI's output to standard error.

    Raises:
        ConfigError: the project, the options and the deployed stack contradict each other.
    """
    folder = template.parent
    if not folder.is_dir():
        raise ConfigError(f"--template {template}: folder {folder} does not exist; create it first.")
    announce_imports(root)
    project = load_project(root)
    project.require_loaded()
    stack = options.stack_name or stack_name(project, choose_stage(options, None))
    text = render(project, folder)
    with steps(1):
        step("reading the AWS account ...")
        account, why = _account(options, project, stack, region)
        where = account.region if account else region
        access = fetch_access(project, where, why)
        traces = fetch_trace_destination(where, why) if uses_cloudwatch(project) else None
    available = account.unreserved + reserved_by(account) if account else None
    check(project, available if reserves_concurrency(options, account) else 0)
    parameters = choose_parameters(options, project, account)
    check_size(project, text)
    translated = translate(text, parameters, account.region if account else region or "us-east-1")
    check_parameters(parameters, translated)
    warnings = config_warnings(project)
    differences = _differences(account, translated, parameters)
    missing = account.missing_keys if account else []
    lines = [page(project, stack, account, why, parameters), *_models(access)]
    lines += ["", f"traces      {traces}"] if traces else []
    lines += [f"warning: {warning}" for warning in warnings]
    lines += _comparison(differences, is_read=account is not None)
    lines += [f"\n{store_command(place)}" for place in missing]
    document = page_document(project, stack, account, why, parameters)
    models = [model.document() for model in access]
    found = {**document, "models": models, "traces": traces, "warnings": warnings, "changes": differences}
    found["missing_keys"] = missing
    report("\n".join(lines), found, as_json=as_json)
    if dry_run:
        return 1 if missing else 0
    if account is None or missing:
        reason = why if account is None else "functions without their keys would fail at init"
        print(f"dspy-lambda: not deployed: {reason}", file=sys.stderr)
        return 1
    target = ["--stack-name", stack, "--region", account.region]
    return _deploy(project, template, text, target, parameters, hidden_parameters(translated), yes, as_json)


def _account(options: Options, project: Project, stack: str, region: str | None) -> tuple[Account | None, str]:
    """Return the account; or None and the reason."""

    def places(deployed_stage: str | None) -> set[str]:
        stage = choose_stage(options, deployed_stage)
        found = {place for function in project.functions.values() for place in project.secrets(function).values()}
        return {place.replace("${Stage}", stage) for place in found}

    try:
        return fetch_account(region, stack, places), ""
    except AccountUnavailable as error:
        return None, str(error)


def _models(access: list[Access]) -> list[str]:
    return ["", "models on Bedrock", *(f"  {model.line}" for model in access)] if access else []


def _differences(
    account: Account | None, translated: dict[str, Any], parameters: dict[str, str]
) -> dict[str, list[str]]:
    """Return what would change; compared with a new stack if the account could not be read."""
    deployed, before = (account.deployed, account.parameters) if account else (None, {})
    after = {**before, **parameters}  # omitted parameters keep their values
    old, new = deployed_config(deployed) if deployed else None, deployed_config(translated)
    return {
        "parameters": [] if deployed is None else parameter_changes(before, after, hidden_parameters(translated)),
        "configuration": configuration_changes(old, new) if old is not None and new is not None else [],
        "resources": changes(deployed, translated, before, after),
    }


def _comparison(differences: dict[str, list[str]], *, is_read: bool) -> list[str]:
    note = "" if is_read else " (as for a new stack: the account could not be read)"
    titles = {"resources": f"change set{note}"}
    found = {titles.get(title, title): lines for title, lines in differences.items() if lines}
    if not found:
        found = {"change set": ["no parameter, configuration or resource; only functions with changed code"]}
    return [line for title, lines in found.items() for line in ("", title, *(f"  {line}" for line in lines))]


def _deploy(
    project: Project,
    template: Path,
    text: str,
    where: list[str],
    parameters: dict[str, str],
    hidden: set[str],
    yes: bool,
    as_json: bool,
) -> int:
    sam = shutil.which("sam")
    if sam is None:
        raise ConfigError("the SAM CLI is not on PATH; install it: pip install aws-sam-cli")
    folder = template.parent
    stdout = sys.stderr if as_json else sys.stdout
    write(text, template)
    write_sam_files(project, folder, lambda line: print(line, file=sys.stderr))
    if project.config.lambda_.package_type == "Image":
        print(build_all(project, folder / "dist"), file=stdout)
    overrides = {key: f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()}
    masked = {overrides[key]: f"ParameterKey={key},ParameterValue={HIDDEN}" for key in hidden & overrides.keys()}
    confirm = ["--no-confirm-changeset"] if yes else ["--confirm-changeset"]
    commands = [
        [sam, "build", "--template", str(template.resolve())],
        # samconfig.toml, which may be the user's own, configures the bucket and the capabilities.
        [sam, "deploy", *where, "--no-fail-on-empty-changeset", *confirm, "--parameter-overrides", *overrides.values()],
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    for command in commands:
        print(f"\n$ {' '.join(masked.get(part, part) for part in command)}", file=stdout, flush=True)
        started = subprocess.run(command, cwd=folder, env=environment, check=False, stdout=2 if as_json else None)
        if status := started.returncode:
            return 1 if status != 130 else status
    return 0
