import pytest
from botocore.exceptions import ClientError

from dspy_lambda_infra.deploy.denied import is_denied


@pytest.mark.parametrize(
    ("code", "denied"), [("AccessDenied", True), ("AccessDeniedException", True), ("NoSuchEntity", False)]
)
def test_missing_permissions_are_recognized_by_error_code(code, denied):
    assert is_denied(ClientError({"Error": {"Code": code, "Message": ""}}, "GetRole")) is denied
