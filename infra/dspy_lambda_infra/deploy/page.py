"""Renders the page that shows what a deployment would do and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dspy_lambda_infra.cost import cost_document, cost_table
from dspy_lambda_infra.deploy.account import Account
from dspy_lambda_infra.limits import find_limits
from dspy_lambda_infra.project import CATALOGUE, Project
from dspy_lambda_infra.template.api import ACCESS_LOG
from dspy_lambda_infra.template.functions import reserved_parts, reserved_total

_OPEN = "OPEN TO THE WORLD (auth: none in the config)"
_MAKE_ROLE = "--api-access-log new-role creates one, for all REST APIs in this account and Region"


def page(project: Project, stack: str, account: Account | None, why: str, parameters: Mapping[str, str]) -> str:
    """Return the page, up to the change set.

    Args:
        why: the reason why there is no account.
    """
    where = f"account {account.id}, {account.region}" if account else f"account not read: {why}"
    title = f"stack {stack}, stage {parameters['Stage']}: {len(project.functions)} programs, {where}"
    lines = [title, "", *_api(project), *_access_log(account, parameters), _concurrency(project, account, parameters)]
    if account is None:
        lines.append("keys        NOT checked: the account could not be read")
    lines += ["", "limits", *_indented(find_limits(project).text)]
    lines += ["", "worst case", *_indented(cost_table(project))]
    return "\n".join(lines)


def page_document(
    project: Project, stack: str, account: Account | None, why: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Return the same as a JSON-serializable dict; the account's figures are null if it could not be read."""
    api = project.config.lambda_.api
    return {
        "stack": stack,
        "stage": parameters["Stage"],
        "account": account.id if account else None,
        "account_unavailable": why or None,
        "region": account.region if account else None,
        "programs": list(project.functions),
        "api": {"kind": api.kind, "auth": api.auth} if project.has_api else None,
        "access_log": parameters.get(ACCESS_LOG),
        "concurrency": {
            "reserved": 0 if parameters.get("ReserveConcurrency") == "false" else reserved_total(project),
            "account": account.concurrency if account else None,
            "unreserved": account.unreserved if account else None,
        },
        "limits": find_limits(project).document,
        "cost": cost_document(project),
    }


def _api(project: Project) -> list[str]:
    if not project.has_api:
        return []
    api = project.config.lambda_.api
    throttle = f"{api.throttle.rate:g} requests/s, bursts of {api.throttle.burst}"
    limit = "throttled by concurrency only" if api.kind == "url" else throttle
    return [f"api         {api.kind}; {_OPEN if api.auth == 'none' else f'auth: {api.auth}'}; {limit}"]


def _access_log(account: Account | None, parameters: Mapping[str, str]) -> list[str]:
    if ACCESS_LOG not in parameters:
        return []
    mode, role = parameters[ACCESS_LOG], account.logs_role if account else None
    match mode, role.state if role else "unknown":
        case "new-role", _:
            said = "with a role that this stack sets for all REST APIs in this account and Region"
        case "account-role", "ready" | "unknown":
            said = f"with the account's role {role.arn if role else ''}".rstrip()
        case "account-role", _:
            said = f"with the account's role, WHICH DOES NOT EXIST: the deployment would fail; {_MAKE_ROLE}"
        case "none", "deleted":
            said = f"off: the account's role {role.arn if role else ''} no longer exists; {_MAKE_ROLE}"
        case "none", "unset":
            said = f"off: API Gateway has no log role; {_MAKE_ROLE}"
        case "none", "ready":
            said = "off (--api-access-log account-role)"
        case _:
            said = "off: no permission to look up the account's log role (if it has one: --api-access-log account-role)"
    return [f"access log  {said}"]


def _concurrency(project: Project, account: Account | None, parameters: Mapping[str, str]) -> str:
    if parameters.get("ReserveConcurrency") == "false":
        return "concurrency nothing reserved (--reserve-concurrency true, once the account's quota is above 100)"
    quota = f"of the account's {account.concurrency}, {account.unreserved} of them free" if account else ""
    parts = reserved_parts(project)
    catalogue = parts.pop(CATALOGUE, 0)
    terms = [f"{programs} x {reserved}" for reserved, programs in sorted(Counter(parts.values()).items()) if reserved]
    terms += [f"{catalogue} for /programs and /docs"] if catalogue else []
    return f"concurrency {reserved_total(project)} reserved ({' + '.join(terms) or 'none'}) {quota}".rstrip()


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
