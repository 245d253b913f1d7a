import json


def test_a_gateways_throttle_is_429_a_function_that_cannot_be_invoked_503_an_unknown_path_404(make):
    responses = make()["Api"]["Properties"]["GatewayResponses"]
    # API Gateway does not tell a function's throttle from an outage: 429 would hide the outage.
    statuses = {"THROTTLED": 429, "INTEGRATION_FAILURE": 503}
    for kind, status in statuses.items():
        assert responses[kind]["StatusCode"] == status
        assert responses[kind]["ResponseParameters"]["Headers"]["Retry-After"] == "'1'"
    assert responses["MISSING_AUTHENTICATION_TOKEN"]["StatusCode"] == 404
    refused = {"INVALID_SIGNATURE": 403, "EXPIRED_TOKEN": 403, "INVALID_API_KEY": 403, "REQUEST_TOO_LARGE": 413}
    assert refused.items() <= {kind: response["StatusCode"] for kind, response in responses.items()}.items()
    assert all(json.loads(r["ResponseTemplates"]["application/json"])["request_id"] for r in responses.values())
