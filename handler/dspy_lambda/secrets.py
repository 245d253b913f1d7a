"""Keys from SSM or Secrets Manager, read once at init: never in the artifact, the template, a log or an exception."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from dspy_lambda.errors import ConfigError

# Variable=ssm:NAME or Variable=secretsmanager:NAME[#KEY], separated by blanks: names only, no values.
SECRETS = "DSPY_LAMBDA_SECRETS"
# Set where the AWS parameters-and-secrets extension is a layer of the function.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html
EXTENSION_PORT = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"
# It may refuse during init ("not ready to serve traffic, please wait").
_EXTENSION_SECONDS, _PAUSE_SECONDS = 1.0, 0.05


def split_place(place: str) -> tuple[str, str, str]:
    """Service (`ssm` or `secretsmanager`), name and key (empty for the whole text) of a secret's place."""
    address, _, key = place.partition("#")
    service, _, name = address.partition(":")
    return service, name, key


def resolve(variables: Mapping[str, str]) -> dict[str, str]:
    """The values of the variables that DSPY_LAMBDA_SECRETS names and that are not set already.

    Raises:
        ConfigError: one cannot be read; says which and what to do, and nothing of a value.
    """
    wanted = dict(entry.partition("=")[::2] for entry in variables.get(SECRETS, "").split())
    # The extension asks for the session token, which a function with SnapStart does not have.
    port, found = variables.get(EXTENSION_PORT) if variables.get("AWS_SESSION_TOKEN") else None, {}
    for variable, place in wanted.items():
        if variables.get(variable):
            continue
        service, name, key = split_place(place)
        text = _from_extension(service, name, port, variables) if port else None
        if text is None:
            port = None  # one that is not there keeps only the first waiting
            text = _from_service(variable, service, name)
        found[variable] = _clean(variable, _pick(variable, f"{service}:{name}", text, key) if key else text)
    return found


def _clean(variable: str, text: str) -> str:
    """Without the line end that a terminal or an editor puts behind a value; it would break every request's header."""
    text = text.strip()
    if not text:
        raise ConfigError(f"{variable}: its secret is empty; put the key there.")
    return text


def _pick(variable: str, address: str, text: str, key: str) -> str:
    try:
        return str(json.loads(text)[key])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{variable}: the secret {address} is no JSON object with the key {key!r}.") from None


def _from_service(variable: str, service: str, name: str) -> str:
    # The SDK is in Lambda's runtime; its import costs more than all of the handler, so only a function with secrets
    # and without the extension pays for it.
    from aws_lambda_powertools.utilities import parameters
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
    from botocore.exceptions import BotoCoreError

    try:
        if service == "ssm":
            return parameters.get_parameter(name, decrypt=True, force_fetch=True)
        value = parameters.get_secret(name, force_fetch=True)  # no cache may outlive a snapshot
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: the secret {service}:{name} is no text.") from None
    except (GetParameterError, BotoCoreError) as error:
        cause = error.__cause__ or error.__context__ or error
        response = getattr(cause, "response", {})
        code = response.get("Error", {}).get("Code", type(cause).__name__)
        raise ConfigError(
            f"{variable}: {service}:{name} cannot be read ({code}); does it exist in this account and region, and may "
            f"the function's role read it?"
        ) from None


def _from_extension(service: str, name: str, port: str, variables: Mapping[str, str]) -> str | None:
    """The extension's answer; None where it does not answer within a second."""
    from http.client import HTTPConnection, HTTPException

    if service == "ssm":
        path = "/systemsmanager/parameters/get?" + urlencode({"name": name, "withDecryption": "true"})
    else:
        path = "/secretsmanager/get?" + urlencode({"secretId": name})
    headers = {"X-Aws-Parameters-Secrets-Token": variables.get("AWS_SESSION_TOKEN", "")}
    end = time.monotonic() + _EXTENSION_SECONDS
    while time.monotonic() < end:
        connection = HTTPConnection("127.0.0.1", int(port), timeout=max(0.05, end - time.monotonic()))
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                found = json.loads(body)
                return str(found["Parameter"]["Value"] if service == "ssm" else found["SecretString"])
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            pass
        finally:
            connection.close()
        time.sleep(_PAUSE_SECONDS)
    return None
