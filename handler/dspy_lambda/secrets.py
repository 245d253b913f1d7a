"""Read keys from SSM or Secrets Manager at init, and again when a provider rejects one.

Keys never appear in the artifact, the template, a log or an exception.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import Settings

# The AWS parameters-and-secrets extension may refuse during init ("not ready to serve traffic, please wait").
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html
_EXTENSION_SECONDS, _PAUSE_SECONDS = 1.0, 0.05
# The SDK's own 60 s each, with retries, outlast the 10 s that Lambda gives an init.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 1.0, 2.0, 2
# "Array Members: Minimum number of 1 item. Maximum number of 10 items."
# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
_MAX_NAMES = 10
_ABSENT = "it does not exist in this account and region"
_DENIED = "the function's role may not read it or may not use its KMS key"
_NO_ANSWER = "no answer; a function in a VPC needs a NAT gateway or the service's interface endpoint"
_REASONS = {
    "ParameterNotFound": _ABSENT,
    "ResourceNotFoundException": _ABSENT,
    "AccessDeniedException": _DENIED,
    "KMSAccessDeniedException": _DENIED,
    "DecryptionFailure": "its KMS key cannot decrypt it",
    "ConnectTimeoutError": _NO_ANSWER,
    "ReadTimeoutError": _NO_ANSWER,
    "EndpointConnectionError": _NO_ANSWER,
    "NoRegionError": "set AWS_REGION",
    "NoCredentialsError": "there are no AWS credentials here",
}
Address = tuple[str, str]  # service and name


def split_place(place: str) -> tuple[str, str, str]:
    """Split a secret's place into service (`ssm` or `secretsmanager`), name and key (empty for the whole text)."""
    address, _, key = place.partition("#")
    service, _, name = address.partition(":")
    return service, name, key


def resolve(settings: Settings) -> dict[str, str]:
    """Read the values of the variables that the setting `secrets` names and that are not already set.

    Raises:
        ConfigError: A secret cannot be read. The message says which and what to do, and never quotes a value.
    """
    variables = settings.variables
    wanted = dict(entry.partition("=")[::2] for entry in settings.secrets.split())
    places = {variable: split_place(place) for variable, place in wanted.items() if not variables.get(variable)}
    texts = _read({(service, name): variable for variable, (service, name, _) in places.items()}, settings)
    found = {}
    for variable, (service, name, key) in places.items():
        text = texts[service, name]
        found[variable] = _clean(variable, _pick(variable, f"{service}:{name}", text, key) if key else text)
    return found


def renew(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Read the current values of these variables, and set them in `os.environ`, where programs' LMs look for keys.

    Bypasses the extension, which caches values for five minutes.

    Raises:
        ConfigError: As for `resolve`.
    """
    variables = {**os.environ, **dict.fromkeys(names, "")}
    fresh = resolve(replace(settings, variables=variables, extension_port=None))
    os.environ.update(fresh)
    return fresh


def _read(wanted: dict[Address, str], settings: Settings) -> dict[Address, str]:
    """Read the text at each address, once per secret. `wanted` maps each address to the variable that needs it."""
    texts: dict[Address, str] = {}
    variables = settings.variables
    # The extension requires the session token, which a function with SnapStart does not have.
    if (port := settings.extension_port) and variables.get("AWS_SESSION_TOKEN"):
        for service, name in wanted:
            text = _from_extension(service, name, port, variables)
            if text is None:
                break  # if the extension is not running, only the first secret waits for it
            texts[service, name] = text
    parameters = [name for service, name in wanted if service == "ssm" and (service, name) not in texts]
    for start in range(0, len(parameters), _MAX_NAMES):
        texts |= _parameters(parameters[start : start + _MAX_NAMES], wanted)
    for address, variable in wanted.items():
        if address not in texts:
            texts[address] = _secret(address, variable)
    return texts


def _clean(variable: str, text: str) -> str:
    """Strip the trailing newline that a terminal or an editor adds; it would break every request's header."""
    text = text.strip()
    if not text:
        raise ConfigError(f"{variable}: its secret is empty; store the key in it.")
    return text


def _pick(variable: str, address: str, text: str, key: str) -> str:
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{variable}: the secret {address} is not a JSON object with the key {key!r}.") from None
    if value is None:
        raise ConfigError(f"{variable}: the secret {address} has null for {key!r}; store the key there.")
    return str(value)


def _parameters(names: list[str], wanted: dict[Address, str]) -> dict[Address, str]:
    """Read up to ten parameters by name or ARN in one request."""
    answer = _call("ssm", "get_parameters", [("ssm", name) for name in names], wanted, Names=names, WithDecryption=True)
    # Parameters of another account are requested by ARN.
    values = {found[key]: found["Value"] for found in answer["Parameters"] for key in ("Name", "ARN") if key in found}
    if missing := [name for name in names if name not in values]:
        raise _cannot_read([("ssm", name) for name in missing], wanted, "ParameterNotFound")
    return {("ssm", name): values[name] for name in names}


def _secret(address: Address, variable: str) -> str:
    answer = _call("secretsmanager", "get_secret_value", [address], {address: variable}, SecretId=address[1])
    if "SecretString" in answer:
        return str(answer["SecretString"])
    try:
        return bytes(answer["SecretBinary"]).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: the secret {':'.join(address)} is not text.") from None


def _call(service: str, operation: str, addresses: list[Address], wanted: dict[Address, str], **request: Any) -> Any:
    # Lambda's runtime includes the SDK, but importing it costs more than the whole handler, so only a function with
    # secrets and without the extension imports it.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    patience = Config(
        connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"total_max_attempts": _ATTEMPTS}
    )
    connect: Any = boto3.client  # its stubs require a literal name
    try:
        # boto3 does not read AWS_REGION; with None it falls back to its own lookup.
        client = connect(service, region_name=os.environ.get("AWS_REGION") or None, config=patience)
        return getattr(client, operation)(**request)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
    except BotoCoreError as error:
        code = type(error).__name__
    raise _cannot_read(addresses, wanted, code)


def _cannot_read(addresses: list[Address], wanted: dict[Address, str], code: str) -> ConfigError:
    variables, places = ", ".join(wanted[a] for a in addresses), ", ".join(":".join(a) for a in addresses)
    reason = _REASONS.get(code, "see this error code in the service's documentation")
    return ConfigError(f"{variables}: {places} cannot be read ({code}): {reason}.")


def _from_extension(service: str, name: str, port: str, variables: Mapping[str, str]) -> str | None:
    """Return the extension's answer, or None if it does not answer within a second."""
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
