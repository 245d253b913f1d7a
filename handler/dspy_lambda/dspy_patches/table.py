"""All that is patched in DSPy, and the one way to put it in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_lambda import provider_bounds
from dspy_lambda.dspy_patches.insides import READINGS
from dspy_lambda.dspy_patches.patch import Patch, put_all_in_place
from dspy_lambda.dspy_patches.replacements import BEST_OF, FOR_SPEED, NO_BARS, OWN_MODELS, history_patch
from dspy_lambda.history import record

PATCHES: tuple[Patch, ...] = (
    *provider_bounds.PATCHES,
    history_patch(record),
    *BEST_OF,
    NO_BARS,
    OWN_MODELS,
    *READINGS,
    *FOR_SPEED,
)


def patch_dspy(
    log: Callable[[str, str, dict[str, Any]], None], *, core_share: float, fast: bool, own_models: bool
) -> None:
    """Put all patches in place, and log one warning that names those which this DSPy has no ground for.

    Args:
        log: called with level, message and fields.
        core_share: what the function has of a core; an answer may be late by so much more.
        fast: with those that only save time.
        own_models: send the calls of all LMs to `DSPY_LAMBDA_API_BASE`.
    """
    provider_bounds.use_share(core_share)
    wanted = (patch for patch in PATCHES if fast or not patch.is_for_speed)
    if left_out := put_all_in_place(patch for patch in wanted if own_models or patch is not OWN_MODELS):
        log("WARNING", "DSPy has changed; it is as it comes in these parts", {"left_out": left_out})
