from botocore.stub import Stubber

from dspy_lambda_infra.deploy.keys import missing_keys, store_command


def test_locations_without_a_value_are_reported_as_missing(session):
    session.client("ssm").put_parameter(Name="/app/there", Type="SecureString", Value="x")
    session.client("secretsmanager").create_secret(Name="app/there", SecretString="{}")
    places = {"ssm:/app/there", "ssm:/app/gone", "secretsmanager:app/there#key", "secretsmanager:app/gone"}
    assert missing_keys(session, places) == ["secretsmanager:app/gone", "ssm:/app/gone"]


def test_a_parameter_after_an_empty_page_is_found(session, monkeypatch):
    """SSM may answer with no parameter and a NextToken."""
    client = session.client("ssm")
    stubber = Stubber(client)
    stubber.add_response("describe_parameters", {"Parameters": [], "NextToken": "more"})
    stubber.add_response("describe_parameters", {"Parameters": [{"Name": "/app/there"}]})
    monkeypatch.setattr(session, "client", lambda service: client)
    with stubber:
        assert missing_keys(session, {"ssm:/app/there"}) == []
    stubber.assert_no_pending_responses()


def test_missing_permission_to_look_up_keys_does_not_block_deployment(session, monkeypatch):
    client = session.client("ssm")
    stubber = Stubber(client)
    stubber.add_client_error("describe_parameters", "AccessDeniedException")
    monkeypatch.setattr(session, "client", lambda service: client)
    with stubber:
        assert missing_keys(session, {"ssm:/app/there"}) == []


def test_the_command_for_a_json_secret_stores_json():
    assert "create-secret --name app/x" in store_command("secretsmanager:app/x#key")
    assert "key" in store_command("secretsmanager:app/x#key")


def test_a_missing_secret_arn_asks_to_create_a_secret_and_update_the_config(session):
    place = "secretsmanager:arn:aws:secretsmanager:us-east-1:123456789012:secret:app/x-AbCdEf#key"
    assert missing_keys(session, {place}) == [place]
    told = store_command(place)
    assert "no secret has the ARN" in told
    assert "lambda.secrets" in told
    assert "create-secret --region us-east-1 --name app/x --secret-string" in told


def test_parameters_in_other_accounts_are_not_looked_up(session):
    assert missing_keys(session, {"ssm:arn:aws:ssm:us-east-1:999999999999:parameter/app/key"}) == []
