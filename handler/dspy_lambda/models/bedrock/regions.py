"""The regions of Bedrock's addresses."""

from __future__ import annotations

import re

from dspy_lambda.models.bedrock.doors import MANTLE, Door

# Also behind a VPC endpoint's own name: vpce-1-2.bedrock-runtime.eu-west-1.vpce.amazonaws.com
_HOST = re.compile(r"(?:^|[/.])bedrock-(?:runtime|mantle)(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-[0-9])\.")


def address(door: Door, region: str) -> str:
    """Return the address of a door in a region.

    https://docs.aws.amazon.com/general/latest/gr/bedrock.html
    """
    if door in MANTLE:
        return f"https://bedrock-mantle.{region}.api.aws"
    return f"https://bedrock-runtime.{region}.amazonaws.com"


def region_in(url: str) -> str | None:
    """Return the region that a Bedrock address names, for which its requests must be signed, or None."""
    found = _HOST.search(url)
    return found.group(1) if found else None


def arn_region(model_id: str) -> str | None:
    """Return the region that an ARN names, whose address alone serves it; None for other ids."""
    parts = model_id.split(":", 5)
    return parts[3] or None if len(parts) == 6 and parts[0] == "arn" else None
