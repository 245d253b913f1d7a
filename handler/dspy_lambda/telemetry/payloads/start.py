"""Create the rules of a program's payloads from its config. Imported only if `telemetry.payloads` asks for any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from urllib.parse import unquote

from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.errors import ConfigError
from dspy_lambda.introspection import class_name
from dspy_lambda.programs.program import Program
from dspy_lambda.settings import PREFIX
from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.payloads.masking import Hook
from dspy_lambda.telemetry.payloads.patterns import check_patterns
from dspy_lambda.telemetry.payloads.rules import Payloads

_CREDENTIAL_WORDS = {"KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "AUTHORIZATION"}


def prepare(
    settings: Telemetry, program: Program | None, exceptions: Exceptions, variables: Mapping[str, str], log: Log
) -> Payloads:
    """Create a program's rules, and redact the credentials in the environment's variables.

    Raises:
        ConfigError: The function of `mask_with` cannot be imported, or a pattern may need exponential time.
    """
    check_patterns(settings.mask)
    if settings.payloads in ("masked", "full"):
        exceptions.redact(credentials(variables, settings.headers_env))
    hook = load_hook(settings.mask_with) if settings.payloads == "masked" else None
    return Payloads(settings, exceptions, log, hook, program.schemas if program else None)


def credentials(variables: Mapping[str, str], headers: str | None) -> Iterator[str]:
    """Yield the values of variables whose names are those of credentials, and of a collector's headers."""
    for name, value in variables.items():
        if not name.startswith(PREFIX) and set(name.upper().split("_")) & _CREDENTIAL_WORDS:
            yield value
    for entry in variables.get(headers or "", "").split(","):
        value = unquote(entry.partition("=")[2].strip())
        yield value
        yield value.rpartition(" ")[2]


def load_hook(name: str | None) -> Hook | None:
    """Import the function of `mask_with`.

    Raises:
        ConfigError: It cannot be imported, or is no function.
    """
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        hook = getattr(import_module(module), function)
    except Exception as error:
        raise ConfigError(
            f"telemetry.mask_with: {name} cannot be imported ({class_name(type(error))}); "
            "write module:function of the project, such as app.masks:mask."
        ) from error
    if not callable(hook):
        raise ConfigError(f"telemetry.mask_with: {name} cannot be called; name a function of two arguments.")
    found: Hook = hook
    return found
