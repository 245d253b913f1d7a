"""Check metrics as CloudWatch reads them from a log line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("emf.schema.json").read_text()))
# "limited to a maximum size of 1 MB"; 256 KB in older editions of the same page.
_MAX_BYTES = 256 * 1024


def check_emf(blob: dict[str, Any]) -> None:
    """Fail if CloudWatch would not read every metric of a line."""
    _SCHEMA.validate(blob)
    assert len(json.dumps(blob).encode()) <= _MAX_BYTES
    for directive in blob["_aws"]["CloudWatchMetrics"]:
        # What the schema cannot say: the names are members of the root.
        for name in (name for dimensions in directive["Dimensions"] for name in dimensions):
            value = blob[name]
            assert isinstance(value, str)
            assert value.isascii()
            assert 0 < len(value.strip()) <= 1024
            assert not value.startswith(":")
        for metric in directive["Metrics"]:
            values = blob[metric["Name"]]
            values = values if isinstance(values, list) else [values]
            assert 0 < len(values) <= 100
            assert all(type(value) in (int, float) for value in values)
