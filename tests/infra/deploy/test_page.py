"""The page that a dry run shows."""

import pytest

from dspy_lambda_infra.deploy.page import page
from dspy_lambda_infra.project import load_project
from tests.infra.deploy.support import ARN, account
from tests.support import AECHO, ECHO


@pytest.fixture
def lines(make_project):
    """Return a page's lines by their first word."""

    def lines(there=None, why="", modules=None, parameters=None, **settings):
        project = load_project(make_project(modules or {"echo": ECHO}, app_id="app", **{"lambda": settings}))
        text = page(project, "app-prod", there, why, {"Stage": "prod", **(parameters or {})})
        found = {}
        for line in text.splitlines():
            found.setdefault(line.partition(" ")[0], line)
        return found

    return lines


def test_the_page_shows_why_the_account_and_keys_were_not_checked(lines):
    found = lines(why="no AWS credentials")
    assert found["stack"] == "stack app-prod, stage prod: 1 programs, account not read: no AWS credentials"
    assert found["keys"] == "keys        NOT checked: the account could not be read"
    assert "keys" not in lines(account())


@pytest.mark.parametrize(
    ("api", "says"),
    [
        ({}, "api         rest; auth: iam; 100 requests/s, bursts of 200"),
        ({"kind": "http", "auth": "none"}, "http; OPEN TO THE WORLD (auth: none in the config); "),
        ({"kind": "url"}, "api         url; auth: iam; throttled by concurrency only"),
    ],
)
def test_the_page_shows_the_apis_auth_and_throttle(lines, api, says):
    line = lines(api=api)["api"]
    assert says.partition("; 100")[0] in line
    assert ("requests/s" in line) == (api.get("kind") != "url")


def test_the_page_of_a_project_without_routes_shows_no_api(lines):
    assert "api" not in lines(defaults={"http": False, "sqs": {}})


@pytest.mark.parametrize(
    ("mode", "role", "says"),
    [
        ("new-role", "unset", "with a role that this stack sets for all REST APIs in this account and Region"),
        ("account-role", "ready", f"with the account's role {ARN}"),
        ("account-role", "unknown", "with the account's role"),
        ("account-role", "unset", "with the account's role, WHICH DOES NOT EXIST: the deployment would fail"),
        ("account-role", "deleted", "with the account's role, WHICH DOES NOT EXIST: the deployment would fail"),
        ("none", "deleted", f"off: the account's role {ARN} no longer exists; --api-access-log new-role creates one"),
        ("none", "unset", "off: API Gateway has no log role; --api-access-log new-role creates one"),
        ("none", "ready", "off (--api-access-log account-role)"),
        ("none", "unknown", "off: no permission to look up the account's log role"),
    ],
)
def test_the_page_explains_the_access_log_from_its_mode_and_the_log_role(lines, mode, role, says):
    assert lines(account(role), parameters={"ApiAccessLog": mode})["access"].startswith(f"access log  {says}")


def test_the_page_without_an_account_makes_no_claim_about_the_log_role(lines):
    assert "no permission to look up" in lines(parameters={"ApiAccessLog": "none"})["access"]
    assert lines(parameters={"ApiAccessLog": "account-role"})["access"] == "access log  with the account's role"


def test_the_page_breaks_down_reserved_concurrency(lines):
    modules = {"echo": ECHO, "aecho": AECHO}
    found = lines(account(concurrency=500), modules=modules, defaults={"reserved_concurrency": 7})
    assert found["concurrency"] == (
        "concurrency 19 reserved (2 x 7 + 5 for /programs and /docs) of the account's 500, 500 of them free"
    )
    nothing = lines(account(), parameters={"ReserveConcurrency": "false"})
    assert nothing["concurrency"].startswith("concurrency nothing reserved (--reserve-concurrency true")
