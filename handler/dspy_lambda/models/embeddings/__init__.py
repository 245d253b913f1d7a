"""Hosted models of `dspy.Embedder` over DSPy's own HTTP client, which DSPy leaves to LiteLLM."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspy_lambda.dspy_patches.patch import Function, Name, Patch, apply_patch

_EMBEDDING = "dspy.clients.embedding"
_PARAMETERS = "model batch_inputs caching kwargs"


def is_native(model: Any, options: Mapping[str, Any]) -> bool:
    """Whether an embedder's requests with these options are sent without LiteLLM: by a known model, on a known DSPy."""
    from dspy_lambda.models.embeddings.served import is_served

    if not is_served(model, options):
        return False
    from dspy_lambda.dspy_patches.http_client import HTTP_CLIENT
    from dspy_lambda.models.bedrock.patches import ENGINE

    needed = (HTTP_CLIENT, ENGINE) if model.startswith("bedrock/") else (HTTP_CLIENT,)
    return all(apply_patch(patch) is None for patch in needed)


def _natively(compute: Function) -> Function:
    """Wrap `_compute_embeddings`, which runs behind DSPy's cache; other models remain DSPy's."""

    def computed(model: Any, batch_inputs: list[str], caching: bool = False, **options: Any) -> Any:
        if not is_native(model, options):
            return compute(model, batch_inputs, caching=caching, **options)
        from dspy_lambda.models.embeddings.calls import embed

        return embed(model, batch_inputs, options)

    return computed


def _natively_on_loop(compute: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap `_acompute_embeddings`."""

    async def computed(model: Any, batch_inputs: list[str], caching: bool = False, **options: Any) -> Any:
        if not is_native(model, options):
            return await compute(model, batch_inputs, caching=caching, **options)
        from dspy_lambda.models.embeddings.calls import aembed

        return await aembed(model, batch_inputs, options)

    return computed


HOSTED_EMBEDDINGS = Patch(
    "hosted embeddings without LiteLLM",
    "LiteLLM: 111 MB of an artifact, and 2 s and 145 MiB at the first call (DSPy 3.4.1); and tokens and cost of "
    "embeddings are counted, and their retries end with the call's deadline",
    (
        Name(_EMBEDDING, "_compute_embeddings", _PARAMETERS, wrap=_natively),
        Name(_EMBEDDING, "_acompute_embeddings", _PARAMETERS, is_async=True, wrap=_natively_on_loop),
    ),
)
