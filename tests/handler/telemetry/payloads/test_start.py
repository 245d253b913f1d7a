"""What the rules of payloads need from the config and the environment."""

from dspy_lambda.telemetry.payloads.start import credentials, load_hook


def test_variables_named_like_credentials_are_redacted():
    variables = {
        "MY_API_KEY": "a",
        "AWS_SESSION_TOKEN": "b",
        "HOME": "c",
        "DSPY_LAMBDA_SECRETS": "d",
        "H": "x=Bearer%20e",
    }
    assert {*credentials(variables, "H")} >= {"a", "b", "Bearer e", "e"}
    assert not {*credentials(variables, "H")} & {"c", "d"}


def test_no_hook_is_loaded_without_a_name():
    assert load_hook(None) is None
