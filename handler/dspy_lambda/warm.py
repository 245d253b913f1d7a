"""Work before the first event: open connections in advance, and run SnapStart's hooks around the snapshot.

https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any

import dspy

from dspy_lambda.dspy_patches.insides import bare_request, native_provider
from dspy_lambda.environment import Environment
from dspy_lambda.secrets import renew

_CONNECT_SECONDS = 2.0
# Nothing listens at this address: calls run until they would use the network.
_NOWHERE = "http://127.0.0.1:9"


def warm(environment: Environment) -> None:
    """Do the work that this function's settings ask for at init."""
    if environment.settings.is_snap_start:
        # Part of Lambda's runtime, and of awslambdaric.
        from snapshot_restore_py import register_after_restore, register_before_snapshot

        register_before_snapshot(before_snapshot, environment)
        # Secrets may have changed since the snapshot was taken.
        register_after_restore(after_restore, environment, environment.keys.names)
    elif environment.settings.preconnect:
        preconnect(environment)


def preconnect(environment: Environment) -> None:
    """Open a connection to the provider of each program and predictor, so that no caller waits for the handshake.

    Requests the provider's list of models, which costs nothing, or its bare address if it has no such list, and waits
    at most two seconds. The connection stays open whatever the answer is.
    """
    for program in environment.programs.values():
        for alias in dict.fromkeys([program.model, *program.predictor_models.values()]):
            _preconnect(environment, environment.models[alias], is_async=program.entry.is_async)


def _preconnect(environment: Environment, lm: dspy.LM, *, is_async: bool) -> None:
    if is_async:
        with contextlib.suppress(Exception):
            environment.runner.run(partial(_wait, environment, _aconnect(lm)))
    else:
        # A blocking request cannot be interrupted, so after the timeout the thread is left running.
        thread = threading.Thread(target=_connect, args=(lm,), daemon=True)
        thread.start()
        thread.join(_CONNECT_SECONDS)


def _wait(environment: Environment, work: Coroutine[Any, Any, None]) -> None:
    """Run on the loop in the thread that will run the calls, because connections belong to their loop."""
    environment.use_loop().run_until_complete(asyncio.wait_for(work, _CONNECT_SECONDS))


async def _aconnect(lm: dspy.LM) -> None:
    provider = native_provider(lm, asynchronous=True)
    if provider.supports.models:
        await provider.list_models()
    else:
        async with provider.transport.stream(bare_request(provider)) as answer:
            await answer.read()


def _connect(lm: dspy.LM) -> None:
    with contextlib.suppress(Exception):
        provider = native_provider(lm, asynchronous=False)
        if provider.supports.models:
            provider.list_models()
        else:
            with provider.transport.stream(bare_request(provider)) as answer:
                answer.read()


def before_snapshot(environment: Environment) -> None:
    """Run the code of a first call up to the network; then close what copies of the snapshot must not share."""
    environment.runner.run(partial(_try_out, environment))
    _forget_credentials()


def _forget_credentials() -> None:
    """Drop the role's credentials, which a snapshot would keep for every environment restored from it."""
    if (credentials := sys.modules.get("dspy_lambda.models.bedrock.credentials")) is not None:
        credentials.forget_credentials()


def _try_out(environment: Environment) -> None:
    loop = environment.use_loop()
    for lm in environment.models.values():
        nowhere = lm.copy(api_base=_NOWHERE, api_key="none", cache=False, num_retries=0)
        with contextlib.suppress(Exception):
            loop.run_until_complete(dspy.LM.acall(nowhere, "?"))
        with contextlib.suppress(Exception):
            dspy.LM.__call__(nowhere, "?")
    environment.close_connections(environment.runner)


def after_restore(environment: Environment, secrets: tuple[str, ...]) -> None:
    """Give each restored environment its own random numbers and connections, and the current keys."""
    random.seed()
    _forget_credentials()
    if environment.telemetry.exporter is not None:
        environment.telemetry.exporter.reset()
    environment.apply_keys(renew(environment.settings, secrets))
