"""Calls of hosted embedding models: bounded, retried and counted like LM calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from dspy.clients.errors import error_boundary
from dspy.utils.exceptions import LMError, is_retryable_lm_error

from dspy_lambda.call import usage_of
from dspy_lambda.dspy_patches.http_client import apost, post
from dspy_lambda.dspy_patches.insides import input_price
from dspy_lambda.models.embeddings.bedrock import bedrock_model
from dspy_lambda.models.embeddings.hosted import HostedModel, Vectors
from dspy_lambda.models.embeddings.openai import OpenAIModel
from dspy_lambda.provider_bounds.attempts import (
    bound_attempt_on_loop,
    bound_call,
    bound_call_on_loop,
    check_attempt,
    pause_before_retry,
)
from dspy_lambda.telemetry.traces.spans import note

# Titan takes one text per request. A sync program's thread starts few more, because Lambda allows 1,024 in all.
_PARALLEL_IN_THREADS = 4
_PARALLEL_ON_LOOP = 16


def embed(model: str, texts: list[str], options: Mapping[str, Any]) -> list[list[float]]:
    """Return a vector for each text.

    Raises:
        LMError: A request failed in the end.
        DeadlineExceeded: The call's deadline passed.
    """
    hosted = _hosted(model, options)
    parts = _parts(hosted, texts)
    if len(parts) == 1:
        return _joined([_call(hosted, parts[0])])
    with ThreadPoolExecutor(min(len(parts), _PARALLEL_IN_THREADS), thread_name_prefix="embed") as pool:
        return _joined(pool.map(partial(_call, hosted), parts))


async def aembed(model: str, texts: list[str], options: Mapping[str, Any]) -> list[list[float]]:
    """Return a vector for each text, as `embed` does, on the loop."""
    hosted = _hosted(model, options)
    parts = _parts(hosted, texts)
    if len(parts) == 1:
        return _joined([await _acall(hosted, parts[0])])
    slots = asyncio.Semaphore(_PARALLEL_ON_LOOP)

    async def one(part: list[str]) -> Any:
        async with slots:
            return await _acall(hosted, part)

    tasks = [asyncio.ensure_future(one(part)) for part in parts]
    try:
        return _joined(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()  # those that are left after a failure; canceling a finished one does nothing


def _hosted(model: str, options: Mapping[str, Any]) -> HostedModel:
    if model.startswith("bedrock/"):
        return bedrock_model(model.removeprefix("bedrock/"), options)
    return OpenAIModel(model.removeprefix("openai/"), options)


def _parts(hosted: HostedModel, texts: list[str]) -> list[list[str]]:
    return [texts[start : start + hosted.most_texts] for start in range(0, len(texts), hosted.most_texts)]


def _joined(parts: Iterable[Vectors]) -> list[list[float]]:
    return [vector for part in parts for vector in part.vectors]


@bound_call
def _call(hosted: HostedModel, texts: list[str]) -> Vectors:
    attempt = 0
    while True:
        try:
            found: Vectors = _send(hosted, texts)
        except LMError as error:
            if attempt >= hosted.num_retries or not is_retryable_lm_error(error):
                raise
            time.sleep(pause_before_retry(error, attempt))
            attempt += 1
        else:
            return _counted(hosted, found)


@bound_call_on_loop
async def _acall(hosted: HostedModel, texts: list[str]) -> Vectors:
    attempt = 0
    while True:
        try:
            found: Vectors = await _asend(hosted, texts)
        except LMError as error:
            if attempt >= hosted.num_retries or not is_retryable_lm_error(error):
                raise
            await asyncio.sleep(pause_before_retry(error, attempt))
            attempt += 1
        else:
            return _counted(hosted, found)


@check_attempt
def _send(hosted: HostedModel, texts: list[str]) -> Vectors:
    with error_boundary(hosted.name, provider=hosted.provider):
        return hosted.vectors(post(hosted.request(texts), hosted.error), texts)


@bound_attempt_on_loop
async def _asend(hosted: HostedModel, texts: list[str]) -> Vectors:
    with error_boundary(hosted.name, provider=hosted.provider):
        build = hosted.request
        request = build(texts) if hosted.is_ready() else await asyncio.to_thread(build, texts)
        return hosted.vectors(await apost(request, hosted.error), texts)


def _counted(hosted: HostedModel, found: Vectors) -> Vectors:
    if (usage := usage_of(hosted)) is not None:
        price = input_price(hosted.provider, hosted.name, hosted.region)
        cost = None if price is None or found.tokens is None else price * found.tokens
        note(usage.add_embeddings(found.tokens or 0, cost))
    return found
