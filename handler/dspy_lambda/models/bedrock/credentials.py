"""The credentials of the function's own role, for all of Bedrock's doors: read late, kept briefly, renewed in time."""

from __future__ import annotations

import os
import threading
from typing import Any

from dspy._vendor.lm15.cloud.chains import ChainContext, resolve
from dspy._vendor.lm15.credentials import AwsCredentials, BearerToken

_BEARER = "AWS_BEARER_TOKEN_BEDROCK"


class RoleCredentials:
    """Resolves credentials for lm15, DSPy's HTTP client, in the order of the AWS SDKs.

    Credentials in the environment are read anew for each request. Others (the container endpoint that SnapStart uses,
    web identity, profiles) are fetched once for all models of the process, and again before they expire.

    Attributes:
        source: where the last credentials came from, which lm15 names in its errors; never the credentials.
    """

    named = None  # lm15: no single identity was named

    def __init__(self, policy: Any) -> None:
        self.source: Any = None
        self._policy = policy

    def __call__(self) -> Any:
        """Return the credentials; may wait for the network, up to several seconds.

        Raises:
            lm15's NotConfiguredError or AuthError: there are none, or their source failed.
        """
        return _from_environment() or _kept.get(self)

    def is_ready(self) -> bool:
        """Whether a call returns without waiting for the network or a file."""
        return _has_environment() or _kept.is_fresh()

    def fetch(self) -> Any:
        """Walk the whole chain: a profile that assumes a role, web identity, sign-in, files, container, instance."""
        context = ChainContext.online()
        context.settings = {"region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""}
        value, self.source = resolve(self._policy, context)
        return value


def _has_environment() -> bool:
    variables = os.environ
    return bool(
        variables.get(_BEARER) or (variables.get("AWS_ACCESS_KEY_ID") and variables.get("AWS_SECRET_ACCESS_KEY"))
    )


def _from_environment() -> Any:
    variables = os.environ
    if token := variables.get(_BEARER):
        return BearerToken(token)
    key, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return AwsCredentials(key, secret, session_token=variables.get("AWS_SESSION_TOKEN") or None)
    return None


class _Kept:
    """Credentials that were fetched, for all models. One thread fetches, and the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Any = None

    def is_fresh(self) -> bool:
        """Whether they are there and do not expire within five minutes (lm15's margin)."""
        value = self._value
        return value is not None and not value.is_expired()

    def get(self, credentials: RoleCredentials) -> Any:
        if not self.is_fresh():
            with self._lock:
                if not self.is_fresh():
                    self._value = credentials.fetch()
        return self._value

    def forget(self) -> None:
        self._value = None
        self._lock = threading.Lock()  # a snapshot or a fork may have been taken while it was held


_kept = _Kept()


def forget_credentials() -> None:
    """Drop fetched credentials. None may be part of a snapshot: it is restored many times, and hours later."""
    _kept.forget()
