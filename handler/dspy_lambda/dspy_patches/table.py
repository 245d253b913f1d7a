"""The list of all patches of DSPy, and the function that applies them."""

from __future__ import annotations

from dspy_lambda import provider_bounds
from dspy_lambda.dspy_patches.bedrock_prices import BEDROCK_PRICES
from dspy_lambda.dspy_patches.deno import DENO_COMMAND, DENO_ENVIRONMENT
from dspy_lambda.dspy_patches.insides import READINGS
from dspy_lambda.dspy_patches.own_models import OWN
from dspy_lambda.dspy_patches.patch import Patch, apply_patches
from dspy_lambda.dspy_patches.replacements import BEST_OF, FOR_SPEED, GATEWAY, NO_BARS, history_patch
from dspy_lambda.history import record
from dspy_lambda.models.bedrock import patches as bedrock
from dspy_lambda.models.embeddings import HOSTED_EMBEDDINGS
from dspy_lambda.telemetry import Log

PATCHES: tuple[Patch, ...] = (
    *provider_bounds.PATCHES,
    HOSTED_EMBEDDINGS,
    history_patch(record),
    *BEST_OF,
    NO_BARS,
    bedrock.BEDROCK,
    GATEWAY,
    *OWN,
    DENO_ENVIRONMENT,
    *READINGS,
    DENO_COMMAND,
    *FOR_SPEED,
    BEDROCK_PRICES,  # outside the remembered lookups, which do not distinguish Regions
)


def patch_dspy(log: Log, *, core_share: float, fast: bool, gateway: bool) -> None:
    """Apply all patches, and log one warning that names those that do not fit this DSPy.

    Args:
        log: called with level, message and fields.
        core_share: the function's share of a core; with a smaller share, answers may be later.
        fast: whether to apply patches that only save time.
        gateway: whether to send the calls of all LMs to `DSPY_LAMBDA_API_BASE`.
    """
    provider_bounds.scale_to_core_share(core_share)
    wanted = (patch for patch in PATCHES if fast or not patch.is_for_speed)
    if left_out := apply_patches(patch for patch in wanted if gateway or patch is not GATEWAY):
        log("WARNING", "DSPy has changed; left out the patches that no longer apply", {"left_out": left_out})


def patch_models(*, gateway: bool = False) -> None:
    """Apply only what decides how an LM is called, for commands that ask about LMs but call none.

    Args:
        gateway: as for `patch_dspy`, if the programs that are imported next will also run in this process.
    """
    apply_patches([bedrock.BEDROCK, *([GATEWAY] if gateway else [])])
