"""Resources that scenarios share: a stack with a VPC and a key, and a user pool."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

import boto3

from dspy_lambda_infra.verify.clean_up import delete_stack, reported

_USER = "verify@example.com"
# Placeholders for the outputs in a dry run.
PLACEHOLDERS = {
    "Subnet": "subnet-00000000",
    "SecurityGroup": "sg-00000000",
    "KeyArn": "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000000",
    "UserPoolArn": "arn:aws:cognito-idp:us-east-1:000000000000:userpool/us-east-1_000000000",
    "UserPoolClient": "00000000000000000000000000",
    "Issuer": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_000000000",
}


def create_shared(session: boto3.Session, name: str) -> dict[str, str]:
    """Create the stack and the user pool with that name, and return the outputs that scenarios need."""
    cloudformation = session.client("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(_template()))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name)
    found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in found} | _create_pool(session, name)


def delete_shared(session: boto3.Session, name: str) -> None:
    """Delete the stack and the user pools with that name, if they exist."""
    delete_stack(session, name)
    cognito = session.client("cognito-idp")
    with reported("deleting the user pool"):
        for page in cognito.get_paginator("list_user_pools").paginate(MaxResults=60):
            for pool in page["UserPools"]:
                if pool["Name"] == name:
                    cognito.delete_user_pool(UserPoolId=pool["Id"])


def _create_pool(session: boto3.Session, name: str) -> dict[str, str]:
    cognito = session.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName=name, AdminCreateUserConfig={"AllowAdminCreateUserOnly": True})["UserPool"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool["Id"],
        ClientName=name,
        ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
    )
    return {
        "UserPoolArn": pool["Arn"],
        "UserPoolClient": client["UserPoolClient"]["ClientId"],
        # https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html
        "Issuer": f"https://cognito-idp.{session.region_name}.amazonaws.com/{pool['Id']}",
    }


def sign_in(session: boto3.Session, shared: Mapping[str, str]) -> str:
    """Create a user in the pool and return its id token, which is valid for an hour."""
    cognito = session.client("cognito-idp")
    pool, password = shared["UserPoolArn"].rpartition("/")[2], f"Aa1!{secrets.token_urlsafe(16)}"
    cognito.admin_create_user(UserPoolId=pool, Username=_USER, MessageAction="SUPPRESS")
    cognito.admin_set_user_password(UserPoolId=pool, Username=_USER, Password=password, Permanent=True)
    answer = cognito.initiate_auth(
        ClientId=shared["UserPoolClient"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": _USER, "PASSWORD": password},
    )
    token: str = answer["AuthenticationResult"]["IdToken"]
    return token


def _template() -> dict[str, Any]:
    outputs = {
        "Subnet": {"Ref": "Subnet"},
        "SecurityGroup": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]},
        "KeyArn": {"Fn::GetAtt": ["Key", "Arn"]},
    }
    resources = {
        "Vpc": _resource("AWS::EC2::VPC", CidrBlock="10.0.0.0/24"),
        "Subnet": _resource("AWS::EC2::Subnet", VpcId={"Ref": "Vpc"}, CidrBlock="10.0.0.0/25"),
        "SecurityGroup": _resource(
            "AWS::EC2::SecurityGroup", VpcId={"Ref": "Vpc"}, GroupDescription="dspy-lambda verify-aws"
        ),
        "Key": _resource("AWS::KMS::Key", KeyPolicy=_key_policy(), PendingWindowInDays=7),
    }
    return {"Resources": resources, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}


def _resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": kind, "Properties": properties}


def _key_policy() -> dict[str, Any]:
    """Return the key policy that docs/security.md asks for."""
    services = ["logs.${AWS::Region}.amazonaws.com", "cloudwatch.amazonaws.com"]
    use = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    root = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"},
            {
                "Effect": "Allow",
                "Principal": {"Service": [{"Fn::Sub": service} for service in services]},
                "Action": use,
                "Resource": "*",
            },
        ],
    }
