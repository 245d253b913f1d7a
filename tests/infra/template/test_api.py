import json

import pytest

from dspy_lambda_infra.template.syntax import get_att, sub
from tests.infra.template.support import variables

POOL = "arn:aws:cognito-idp:us-east-1:1:userpool/x"


JWT = {
    "JwtConfiguration": {"issuer": "https://i", "audience": ["a"]},
    "IdentitySource": "$request.header.Authorization",
}


PLAN = {
    "CreateUsagePlan": "PER_API",
    "Throttle": {"RateLimit": 7, "BurstLimit": 9},
    "Quota": {"Limit": 5, "Period": "DAY"},
}


@pytest.mark.parametrize(
    ("api", "auth"),
    [
        ({}, {"DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE"}),
        ({"kind": "rest", "auth": "none"}, None),
        (
            {"auth": "api_key", "throttle": {"rate": 7, "burst": 9}, "requests_per_day": 5},
            {"ApiKeyRequired": True, "UsagePlan": PLAN},
        ),
        (
            {"auth": "jwt", "user_pool_arn": POOL},
            {"Authorizers": {"Jwt": {"UserPoolArn": POOL}}, "DefaultAuthorizer": "Jwt"},
        ),
        ({"kind": "http"}, {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}),
        (
            {"kind": "http", "auth": "jwt", "issuer": "https://i", "audience": ["a"]},
            {"Authorizers": {"Jwt": JWT}, "DefaultAuthorizer": "Jwt"},
        ),
        ({"kind": "http", "auth": "none"}, None),
    ],
)
def test_an_api_requires_auth_unless_the_config_says_none(make, api, auth):
    found = make({"api": api})["HttpApi" if api.get("kind") == "http" else "Api"]
    assert found["Properties"].get("Auth") == auth


def test_a_function_url_requires_auth_unless_the_config_says_none(make):
    for auth, type_ in (("iam", "AWS_IAM"), ("none", "NONE")):
        found = make({"api": {"kind": "url", "auth": auth}})
        for function in ("EchoFunction", "CatalogueFunction"):
            assert found[function]["Properties"]["FunctionUrlConfig"] == {"AuthType": type_}
        assert "Api" not in found


def test_an_api_throttles_and_writes_access_logs(make):
    throttle = {"throttle": {"rate": 7, "burst": 9}}
    rest = make({"api": throttle})["Api"]["Properties"]
    assert (rest["MethodSettings"][0]["ThrottlingRateLimit"], rest["MethodSettings"][0]["ThrottlingBurstLimit"]) == (
        7,
        9,
    )
    http = make({"api": {"kind": "http", **throttle}})["HttpApi"]["Properties"]
    assert http["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 9
    condition, rest_log, _ = rest["AccessLogSetting"]["Fn::If"]
    assert condition == "HasAccessLog"
    for log in (rest_log, http["AccessLogSettings"]):
        assert log["DestinationArn"] == get_att("ApiLogGroup.Arn")
        assert json.loads(log["Format"])["requestId"] == "$context.requestId"
        assert json.loads(log["Format"])["integrationStatus"] == "$context.integration.status"


def test_an_http_apis_access_log_does_not_use_up_the_accounts_resource_policy(make):
    """API Gateway extends it, up to 5,120 characters, for each log group without this prefix."""
    group = make({"api": {"kind": "http"}})["ApiLogGroup"]["Properties"]
    assert group["LogGroupName"] == sub("/aws/vendedlogs/${AWS::StackName}/api")
    assert "LogGroupName" not in make()["ApiLogGroup"]["Properties"]


def test_preflight_routes_need_no_credentials(make):
    origins = {"cors_origins": ["https://a", "https://b"]}
    catalogue = make(server=origins)["CatalogueFunction"]["Properties"]
    preflights = [e["Properties"] for e in catalogue["Events"].values() if e["Properties"]["Method"] == "OPTIONS"]
    assert len({route["Path"] for route in preflights} | {"/Echo"}) == len(preflights) == 6
    assert all(route["Auth"]["Authorizer"] == "NONE" for route in preflights)
    http = make({"api": {"kind": "http"}}, server=origins)
    assert http["HttpApi"]["Properties"]["CorsConfiguration"]["AllowOrigins"] == ["https://a", "https://b"]
    assert "ToEchoPreflight" in http["CatalogueFunction"]["Properties"]["Events"]
    is_open = make({"api": {"kind": "http", "auth": "none"}}, server=origins)
    assert "ToEchoPreflight" not in is_open["CatalogueFunction"]["Properties"]["Events"]
    url = make({"api": {"kind": "url"}}, server=origins)["EchoFunction"]["Properties"]["FunctionUrlConfig"]
    assert url["Cors"]["AllowOrigins"] == ["https://a", "https://b"]
    # `*` covers every header except this one.
    assert "Authorization" in url["Cors"]["AllowHeaders"]
    assert "Authorization" in http["HttpApi"]["Properties"]["CorsConfiguration"]["AllowHeaders"]


def test_a_program_without_http_has_no_route_and_only_such_programs_have_no_api(make):
    found = make({"defaults": {"http": False, "sqs": {}}})
    assert "Api" not in found
    assert "CatalogueFunction" not in found
    assert "Route" not in found["EchoFunction"]["Properties"]["Events"]
    assert variables(found)["DSPY_LAMBDA_SOURCES"] == "sqs"
