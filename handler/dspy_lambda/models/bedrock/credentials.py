"""The credentials of the function's own role, for all of Bedrock's doors: read late, kept briefly, renewed in time."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dspy.lm15 import AuthError, LM15Error, NotConfiguredError

from dspy_lambda.dspy_patches.lm15 import AwsCredentials, BearerToken, ChainContext, CredentialSource, resolve
from dspy_lambda.telemetry.exceptions import remember

_BEARER = "AWS_BEARER_TOKEN_BEDROCK"
_TOKEN_SOURCE = CredentialSource(_BEARER, f"the variable {_BEARER}")
_KEYS_SOURCE = CredentialSource("AWS_ACCESS_KEY_ID", "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
_AGE = 300.0  # seconds after which credentials without a known end are read again: a file may have been rewritten
_PAUSE = 30.0  # seconds between attempts to renew credentials that are still valid
_TO_DO = (
    "In AWS the function's role signs, without any setting; on a laptop run `aws sso login` or `aws configure`, set "
    f"AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {_BEARER}"
)


class RoleCredentials:
    """Resolves credentials for lm15, DSPy's HTTP client, in the order of the AWS SDKs.

    Credentials in the environment are read anew for each request. Others (the container endpoint that SnapStart uses,
    web identity, profiles) are fetched once for all models of the process, and again before they expire.

    Args:
        bearer: whether AWS_BEARER_TOKEN_BEDROCK, which only Bedrock accepts, comes first.

    Attributes:
        source: where the last credentials came from, which lm15 names in its errors; never the credentials.
    """

    named = None  # lm15: no single identity was named

    def __init__(self, policy: Any, *, bearer: bool = True) -> None:
        self.source: Any = None
        self._policy = policy if bearer else replace(policy, env_keys=())
        self._bearer = bearer

    def __call__(self) -> Any:
        """Return the credentials; may wait for the network, up to several seconds.

        Raises:
            NotConfiguredError: there are none.
            AuthError: their source failed.
        """
        value = self._current()
        # AWS quotes the signed headers when it refuses a signature, the session token among them.
        remember(value.session_token if isinstance(value, AwsCredentials) else value.value)
        return value

    def _current(self) -> Any:
        variables = os.environ
        if self._bearer and (token := variables.get(_BEARER)):
            self.source = _TOKEN_SOURCE
            return BearerToken(token)
        key, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
        if key and secret:
            self.source = _KEYS_SOURCE
            return AwsCredentials(key, secret, session_token=variables.get("AWS_SESSION_TOKEN") or None)
        value, self.source = _kept.get(self._policy)
        return value

    def is_ready(self) -> bool:
        """Whether a call returns without waiting for the network or a file."""
        variables = os.environ
        has_keys = variables.get("AWS_ACCESS_KEY_ID") and variables.get("AWS_SECRET_ACCESS_KEY")
        return bool(variables.get(_BEARER) or has_keys) or _kept.is_usable()


def _fetch(policy: Any) -> tuple[Any, Any]:
    """Walk the whole chain: a profile that assumes a role, web identity, sign-in, files, container, instance."""
    context = ChainContext.online()
    context.settings = {"region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""}
    value, source = resolve(policy, context)
    if _is_over(value):
        raise AuthError(f"{source.label}: the credentials have expired")
    return value, source


def _is_over(value: Any) -> bool:
    return value.expires_at is not None and value.expires_at <= datetime.now(UTC)


class _Kept:
    """Credentials that were fetched, for all models. One thread fetches, and the others wait for it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()  # a snapshot or a fork may have been taken while the last one was held
        self._value: Any = None
        self._source: Any = None
        self._until = 0.0  # by the monotonic clock, for credentials without a known end and those near it
        self._attempts = 0
        self._failure: tuple[type[LM15Error], str] | None = None

    def is_usable(self) -> bool:
        """Whether they are there, valid, and need not be renewed yet."""
        value = self._value
        if value is None or _is_over(value):
            return False
        if value.expires_at is None or value.is_expired():  # unknown, or within lm15's margin of five minutes
            return time.monotonic() < self._until
        return True

    def get(self, policy: Any) -> tuple[Any, Any]:
        if not self.is_usable():
            attempts = self._attempts
            with self._lock:
                if not self.is_usable() and (self._failure is None or attempts == self._attempts):
                    self._renew(policy)
                if self._value is None and self._failure is not None:  # also of the thread that this one waited for
                    kind, text = self._failure
                    raise kind(text, provider="bedrock", credential_hint=_TO_DO)
        return self._value, self._source

    def _renew(self, policy: Any) -> None:
        try:
            self._value, self._source = _fetch(policy)
            self._failure = None
        except LM15Error as error:
            is_missing = isinstance(error, NotConfiguredError) and "no credential found" in str(error)
            what = "found no AWS credentials" if is_missing else f"could not get credentials: {_first_line(error)}"
            self._failure = (NotConfiguredError if is_missing else AuthError, f"bedrock: {what}")
            if self._value is None or _is_over(self._value):
                self._value = None
        self._attempts += 1  # now, so that who came while this went on counts as having waited for it
        if self._value is not None:
            self._until = time.monotonic() + (_AGE if self._value.expires_at is None else _PAUSE)


def _first_line(error: LM15Error) -> str:
    return str(error).partition("\n")[0]


_kept = _Kept()


def forget_credentials() -> None:
    """Drop fetched credentials. None may be part of a snapshot: it is restored many times, and hours later."""
    _kept.forget()
