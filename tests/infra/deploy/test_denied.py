import pytest
from botocore.exceptions import ClientError

from dspy_lambda_infra.deploy.denied import is_denied


@pytest.mark.parametrize(
    ("code", "denied"), [("AccessDenied", True), ("AccessDeniedException", True), ("NoSuchEntity", False)]
)
def test_a_missing_permission_is_told_from_other_errors_by_its_code(code, denied):
    assert is_denied(ClientError({"Error": {"Code": code, "Message": ""}}, "GetRole")) is denied
