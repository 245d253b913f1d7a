"""The X-Ray trace header of an invocation.

https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
"""

from __future__ import annotations

import re
import time
import uuid

_ROOT = re.compile("1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}")
_PARENT = re.compile("[0-9a-fA-F]{16}")


def new_header() -> str:
    """Return a header that starts a trace, which is not sampled: X-Ray tracing is not active."""
    return f"{_new_root()};Sampled=0"


def continue_header(received: str | None) -> str:
    """Return a caller's header without what is malformed in it; it starts a trace if it does not name one."""
    parts = dict(part.strip().partition("=")[::2] for part in (received or "").split(";"))
    if not _ROOT.fullmatch(parts.get("Root", "")):
        return _new_root()
    kept = [f"Root={parts['Root']}"]
    if _PARENT.fullmatch(parts.get("Parent", "")):
        kept.append(f"Parent={parts['Parent']}")
    if parts.get("Sampled") in ("0", "1"):
        kept.append(f"Sampled={parts['Sampled']}")
    return ";".join(kept)


def _new_root() -> str:
    return f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"
