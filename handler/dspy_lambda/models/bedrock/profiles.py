"""Bedrock's model ids: the geography of an inference profile, and what an ARN names."""

from __future__ import annotations

import re
from typing import NamedTuple

# No provider's name has two letters, so that geographies that AWS adds later are recognized too.
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html
_PROFILE = re.compile(r"(?P<geography>global|apac|[a-z]{2}(-gov)?)\.(?P<model>.+)")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]*):(?P<account>[0-9]*):(?P<kind>[a-z-]+)/(?P<id>.+)")


class Arn(NamedTuple):
    """The parts of a Bedrock ARN; a foundation model's has no account. `kind` is `inference-profile`, for example."""

    region: str
    account: str
    kind: str
    id: str


def split_arn(model_id: str) -> Arn | None:
    """Return the parts of an ARN, or None if a model's id is not one of Bedrock's."""
    found = _ARN.fullmatch(model_id)
    return None if found is None else Arn(**found.groupdict())


def split_profile(model_id: str) -> tuple[str | None, str]:
    """Return the geography of an inference profile's id (`us`, `global`), or None, and the foundation model's id."""
    found = _PROFILE.fullmatch(model_id)
    return (None, model_id) if found is None else (found["geography"], found["model"])
