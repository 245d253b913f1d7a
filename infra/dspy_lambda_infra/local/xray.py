"""The X-Ray trace header of an invocation.

https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
"""

from __future__ import annotations

import re
import time
import uuid

_ROOT = re.compile("1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}")
_PARENT = re.compile("[0-9a-fA-F]{16}")


def runtime_header(received: str | None) -> str:
    """Return what Lambda gives the runtime: the trace is not sampled unless the caller says so."""
    header = continue_header(received)
    return header if "Sampled=" in header else f"{header};Sampled=0"


def continue_header(received: str | None) -> str:
    """Return what a gateway makes of a caller's header: without what is malformed in it, or the start of a trace."""
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
