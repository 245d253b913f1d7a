"""The catalogue function: `dspy_lambda.catalogue.lambda_handler` serves the shared GET routes for all programs.

It reads a manifest written when the artifact was built and never imports DSPy, so a health check needs neither a
program's environment nor its cold start.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from dspy_lambda.api.events import kind_of
from dspy_lambda.api.lambda_app import LambdaApp
from dspy_lambda.api.shared import MANIFEST, create_shared_app
from dspy_lambda.errors import UnknownEvent


def _load() -> LambdaApp:
    manifest = json.loads((Path(os.environ["LAMBDA_TASK_ROOT"]) / MANIFEST).read_bytes())
    openapi = manifest.pop("openapi")
    asyncio.set_event_loop(asyncio.new_event_loop())  # Mangum runs requests on it
    app = create_shared_app(**manifest)
    app.openapi = lambda: openapi  # type: ignore[method-assign]
    return LambdaApp(app)


_app = _load()


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one HTTP event.

    Raises:
        UnknownEvent: The event is not an HTTP event.
    """
    if not isinstance(event, dict) or kind_of(event) is None:
        raise UnknownEvent("The catalogue function accepts only HTTP events; each program has its own function.")
    return _app.answer(event, context)
