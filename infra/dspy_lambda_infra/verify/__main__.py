"""Deploy, check, delete: `python -m dspy_lambda_infra.verify [--region R] [--only SCENARIO] [--dry-run]`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from dspy_lambda_infra.cli import main as dspy_lambda
from dspy_lambda_infra.deploy.account import open_session
from dspy_lambda_infra.deploy.logs_role import find_logs_role
from dspy_lambda_infra.verify.checks import Check, claim
from dspy_lambda_infra.verify.clean_up import (
    delete_kept,
    delete_parameter,
    delete_stack,
    delete_uploads,
    resources_of,
    restore_logs_role,
)
from dspy_lambda_infra.verify.project import key_parameter, write_project
from dspy_lambda_infra.verify.scenarios import SCENARIOS, Scenario
from dspy_lambda_infra.verify.shared import PLACEHOLDERS, create_shared, delete_shared, sign_in
from dspy_lambda_infra.verify.stack import Stack

_MARKS = {True: "holds ", False: "FAILS ", None: "not checked "}


@dataclass(frozen=True)
class Result:
    """A check's result; `holds` is None if it could not be checked."""

    claim: str
    holds: bool | None
    seen: str


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios and return 0 if no claim fails; delete everything that was created in any case."""
    options = _parser().parse_args(arguments)
    chosen = [s for s in SCENARIOS if not options.only or s.name in options.only]
    run = f"dspy-lambda-verify-{secrets.token_hex(4)}"
    if options.dry_run:
        return _dry_run(chosen, run, options.region)
    session = open_session(options.region)
    logs_role = find_logs_role(session)
    results: list[Result] = []
    try:
        with _shared(session, f"{run}-shared", chosen) as shared:
            for scenario in chosen:
                name = f"{run}-{scenario.name}"
                _verify(session, scenario, name, shared, results, new_logs_role=options.new_logs_role)
    finally:
        restore_logs_role(session, logs_role)
    return report(results)


def report(results: list[Result]) -> int:
    """Print the summary; return 1 if a claim fails."""
    counts = {mark: sum(result.holds is holds for result in results) for holds, mark in _MARKS.items()}
    print(", ".join(f"{count} {mark.strip().lower()}" for mark, count in counts.items()))
    return 1 if counts[_MARKS[False]] else 0


def run_checks(checks: Iterable[Check], stack: Stack, results: list[Result]) -> None:
    """Run the checks in order; a check that raises fails."""
    for check in checks:
        try:
            holds, seen = check(stack)
        except Exception as error:
            holds, seen = False, f"{type(error).__name__}: {error}"
        _note(results, Result(claim(check), holds, seen))


def _note(results: list[Result], result: Result) -> None:
    print(f"{_MARKS[result.holds]}{result.claim}\n        {result.seen}", flush=True)
    results.append(result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="verify-aws", description=__doc__)
    parser.add_argument("--region", help="(default: from the AWS profile)")
    parser.add_argument("--only", action="append", choices=[s.name for s in SCENARIOS], help="can be repeated")
    parser.add_argument(
        "--new-logs-role",
        action="store_true",
        help="also check ApiAccessLog=new-role if API Gateway has no log role; restores the account's setting",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be deployed and checked")
    return parser


def _dry_run(scenarios: list[Scenario], run: str, region: str | None) -> int:
    """Print each scenario's deployment page and claims; return 2 if one of the configs is refused."""
    worst = 0
    for scenario in scenarios:
        print(f"\n=== {scenario.name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = _write(scenario, Path(folder), f"{run}-{scenario.name}", PLACEHOLDERS, region)
            # 1: the key does not exist yet.
            status = dspy_lambda([*arguments, "--dry-run"])
        worst = max(worst, status if status != 1 else 0)
        print("\nwould check:", *map(claim, (*scenario.checks, *scenario.afterwards)), sep="\n  ")
        if why := scenario.obstacle():
            print(f"not possible here: {why}")
    return worst


def _write(scenario: Scenario, folder: Path, name: str, shared: Mapping[str, str], region: str | None) -> list[str]:
    """Write the scenario's project and return the arguments that deploy it."""
    config, server = scenario.config(shared), dict(scenario.server or {})
    project = write_project(folder / "project", name, config, server, has_model=scenario.has_model)
    where = ["--project", str(project), "--template", str(project / "template.yaml"), "--stack-name", name]
    return ["deploy", *where, *(["--region", region] if region else [])]


@contextmanager
def _shared(session: boto3.Session, name: str, scenarios: list[Scenario]) -> Iterator[dict[str, str]]:
    """Yield the outputs of the shared stack if a scenario needs it."""
    if not any(scenario.is_shared for scenario in scenarios):
        yield {}
        return
    try:
        shared = create_shared(session, name)
        yield shared | {"Token": sign_in(session, shared)}
    finally:
        delete_shared(session, name)


def _verify(
    session: boto3.Session,
    scenario: Scenario,
    name: str,
    shared: dict[str, str],
    results: list[Result],
    *,
    new_logs_role: bool,
) -> None:
    """Deploy a scenario, check it and delete it; add what is found to the results."""
    deploys = f"{scenario.name}: the stack deploys"
    if why := scenario.obstacle():
        _note(results, Result(deploys, None, why))
        return
    with tempfile.TemporaryDirectory() as folder:
        deployment = [*_write(scenario, Path(folder), name, shared, session.region_name), "--yes"]
        if scenario.has_model:
            parameter, value = key_parameter(name), secrets.token_urlsafe(24)
            session.client("ssm").put_parameter(Name=parameter, Type="SecureString", Value=value)
        stack = None
        try:
            is_rest = scenario.config(shared).get("api", {}).get("kind", "rest") == "rest"
            asked = is_rest and new_logs_role and find_logs_role(session).state in ("unset", "deleted")
            status = dspy_lambda([*deployment, *(["--api-access-log", "new-role"] if asked else [])])
            _note(results, Result(deploys, status == 0, f"exit status {status}"))
            if status == 0:
                stack = _stack(session, scenario, name, shared, deployment)
                run_checks(scenario.checks, stack, results)
        finally:
            resources = resources_of(session, name)
            delete_stack(session, name)
            if stack:
                run_checks(scenario.afterwards, stack, results)
            delete_kept(session, resources)
            delete_uploads(session, name)
            if scenario.has_model:
                delete_parameter(session, key_parameter(name))


def _stack(
    session: boto3.Session, scenario: Scenario, name: str, shared: dict[str, str], deployment: list[str]
) -> Stack:
    found = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    api = scenario.config(shared).get("api", {})
    return Stack(
        session,
        name,
        {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])},
        kind=api.get("kind", "rest"),
        auth=api.get("auth", "iam"),
        token=shared.get("Token", ""),
        shared=shared,
        deploy=lambda more: dspy_lambda([*deployment, *more]),
    )


if __name__ == "__main__":
    sys.exit(main())
