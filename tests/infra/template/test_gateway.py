import json


def test_gateway_responses_map_throttle_to_429_uninvokable_to_503_unknown_path_to_404(make):
    responses = make()["Api"]["Properties"]["GatewayResponses"]
    # API Gateway does not distinguish a throttled function from an outage: 429 would hide the outage.
    statuses = {"THROTTLED": 429, "INTEGRATION_FAILURE": 503}
    for kind, status in statuses.items():
        assert responses[kind]["StatusCode"] == status
        assert responses[kind]["ResponseParameters"]["Headers"]["Retry-After"] == "'1'"
    assert responses["MISSING_AUTHENTICATION_TOKEN"]["StatusCode"] == 404
    refused = {"INVALID_SIGNATURE": 403, "EXPIRED_TOKEN": 403, "INVALID_API_KEY": 403, "REQUEST_TOO_LARGE": 413}
    assert refused.items() <= {kind: response["StatusCode"] for kind, response in responses.items()}.items()
    assert all(json.loads(r["ResponseTemplates"]["application/json"])["request_id"] for r in responses.values())
