"""`dspy-lambda deploy`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda.secrets import split_place
from dspy_lambda_infra.artifact.command import build_all
from dspy_lambda_infra.checks import UNRESERVED, check
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.cost import cost_table
from dspy_lambda_infra.deploy.account import DEFAULT_STAGE, Account, NotAsked, ask
from dspy_lambda_infra.deploy.changes import changes
from dspy_lambda_infra.deploy.translate import translate
from dspy_lambda_infra.limits import report
from dspy_lambda_infra.project import Project, load_project, say_what_runs
from dspy_lambda_infra.stack_size import check_size
from dspy_lambda_infra.template import render, write
from dspy_lambda_infra.template.beside import stack_name, write_beside
from dspy_lambda_infra.template.functions import reserved_total, reserves

_OPEN = "OPEN TO THE WORLD (auth: none stands in the config)"


def run_deploy(options: argparse.Namespace) -> int:
    """Print the page; without `--dry-run` write the template, build and deploy."""
    say_what_runs(options.project)
    project = load_project(options.project)
    project.require_loaded()
    stack = options.stack_name or stack_name(project)
    text = render(project, options.template.parent)
    account: Account | None = None
    try:
        account, why = ask(options.region, stack, lambda stage: _places(project, options.stage or stage)), ""
    except NotAsked as error:
        why = str(error)
    reserve = _reserve(options, account)
    available = account.unreserved + _reserved_by(account) if account else None
    check(project, available if reserve else 0)
    parameters = _parameters(options, project, account, reserve)
    check_size(project, text)
    translated = translate(text, parameters, options.region or "us-east-1")
    print(_page(project, stack, account, why, reserve))
    for warning in config_warnings(project):
        print(f"warning: {warning}")
    print("\nchange set" + ("" if account else " (as for a new stack: the account was not asked)"))
    lines = changes(account.deployed if account else None, translated)
    print("\n".join(f"  {line}" for line in lines or ["nothing but code"]))
    missing = account.missing_secrets if account else []
    for place in missing:
        print(f"\nno value yet for {place}; put it there, and nowhere else:\n  {_how_to_put(place)}")
    if options.dry_run:
        return 1 if missing else 0
    if account is None or missing:
        reason = why if account is None else "functions without their keys would fail at init"
        print(f"dspy-lambda: not deployed: {reason}", file=sys.stderr)
        return 1
    return _deploy(options, project, stack, account, text, parameters)


def _places(project: Project, stage: str) -> set[str]:
    """Where all functions' secrets are, in a stage."""
    found = {place for function in project.functions.values() for place in project.secrets(function).values()}
    return {place.replace("${Stage}", stage) for place in found}


def _deploy(
    options: argparse.Namespace, project: Project, stack: str, account: Account, text: str, parameters: dict[str, str]
) -> int:
    sam = shutil.which("sam")
    if sam is None:
        raise ConfigError("the SAM CLI is not on PATH; install it: pip install aws-sam-cli")
    folder: Path = options.template.parent
    write(text, options.template)
    write_beside(project, folder, lambda line: print(line, file=sys.stderr))
    if project.config.lambda_.package_type == "Image":
        build_all(project, folder / "dist")
    overrides = [f"ParameterKey={key},ParameterValue={value}" for key, value in parameters.items()]
    confirm = ["--no-confirm-changeset"] if options.yes else ["--confirm-changeset"]
    where = ["--stack-name", stack, "--region", account.region]
    commands = [
        [sam, "build", "--template", str(options.template.resolve())],
        # Where artifacts go and what capabilities are granted stands in samconfig.toml, which may be the user's.
        [sam, "deploy", *where, "--no-fail-on-empty-changeset", *confirm, "--parameter-overrides", *overrides],
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    for command in commands:
        print(f"\n$ {' '.join(command)}", flush=True)
        if status := subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
            return 1 if status != 130 else status
    return 0


def _parameters(
    options: argparse.Namespace, project: Project, account: Account | None, reserve: bool
) -> dict[str, str]:
    """The template's parameters: as said, else as deployed, else as the account needs them."""
    before = account.parameters if account else {}
    parameters = {"Stage": options.stage or before.get("Stage", DEFAULT_STAGE)}
    if reserves(project):
        parameters["ReserveConcurrency"] = str(reserve).lower()
    if project.config.lambda_.alarms and (address := options.alarm_email or before.get("AlarmEmail")):
        parameters["AlarmEmail"] = address
    if project.has_api and project.config.lambda_.api.kind == "rest":
        # Once this stack's, it stays this stack's: as false it would go, with the account still pointing to it.
        is_ours = before.get("CreateApiLogsRole") == "true"
        needed = account is None or is_ours or not account.has_api_logs_role
        parameters["CreateApiLogsRole"] = str(needed).lower()
    if version := options.secrets_version or before.get("SecretsVersion"):
        parameters["SecretsVersion"] = version
    parameters |= dict(options.parameter)
    return parameters


def _reserve(options: argparse.Namespace, account: Account | None) -> bool:
    """Whether concurrency is reserved: as said, else as deployed, else where the account's quota allows it."""
    before = account.parameters.get("ReserveConcurrency") if account else None
    said = options.reserve_concurrency or before
    return said == "true" if said else account is None or account.concurrency > UNRESERVED


def _reserved_by(account: Account) -> int:
    """What the deployed stack has reserved itself."""
    if account.parameters.get("ReserveConcurrency") != "true":
        return 0
    total = 0
    for resource in (account.deployed or {}).get("Resources", {}).values():
        found = resource.get("Properties", {}).get("ReservedConcurrentExecutions", 0)
        if isinstance(found, dict):
            found = next((item for item in found.get("Fn::If", []) if isinstance(item, int)), 0)
        total += int(found)
    return total


def _page(project: Project, stack: str, account: Account | None, why: str, reserve: bool) -> str:
    api = project.config.lambda_.api
    where = f"account {account.id}, {account.region}" if account else f"account not asked: {why}"
    lines = [f"stack {stack}: {len(project.functions)} programs, {where}", ""]
    if project.has_api:
        throttle = f"{api.throttle.rate:g} requests/s, bursts of {api.throttle.burst}"
        limit = "no throttle but concurrency" if api.kind == "url" else throttle
        lines.append(f"api         {api.kind}; {_OPEN if api.auth == 'none' else f'auth: {api.auth}'}; {limit}")
    quota = f"of the account's {account.concurrency}, {account.unreserved} of them free" if account else ""
    state = (
        f"{reserved_total(project)} reserved {quota}"
        if reserve
        else "nothing reserved (--reserve-concurrency true, once the account's quota is above 100)"
    )
    lines += [f"concurrency {state}", "", "limits", *_indented(report(project)[0])]
    lines += ["", "worst case", *_indented(cost_table(project))]
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _how_to_put(place: str) -> str:
    """From the keyboard, without an echo, a history or a line end."""
    service, name, key = split_place(place)
    value = f'printf \'{{"%s": "%s"}}\' {key} "$KEY"' if key else 'printf %s "$KEY"'
    put = (
        f"aws ssm put-parameter --type SecureString --overwrite --name {name} --value file:///dev/stdin"
        if service == "ssm"
        else f"aws secretsmanager create-secret --name {name} --secret-string file:///dev/stdin"
    )
    return f"read -rs KEY; {value} | {put}"
