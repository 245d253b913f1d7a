import boto3
import pytest
from moto import mock_aws


@pytest.fixture
def session(credentials):
    with mock_aws():
        yield boto3.Session(region_name="us-east-1")
