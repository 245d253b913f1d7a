"""The catalogue function: `dspy_lambda.catalogue.lambda_handler` serves the shared GET routes for all programs.

From a manifest that was made when the artifact was built: it never imports DSPy, so that a health check costs neither
a model's environment nor its cold start.
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
    asyncio.set_event_loop(asyncio.new_event_loop())  # the one that Mangum runs everything on
    app = create_shared_app(**manifest)
    app.openapi = lambda: openapi  # type: ignore[method-assign]
    return LambdaApp(app)


_app = _load()


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one HTTP event.

    Raises:
        UnknownEvent: it is none.
    """
    if not isinstance(event, dict) or kind_of(event) is None:
        raise UnknownEvent("The catalogue function takes HTTP events; programs have functions of their own.")
    return _app.answer(event, context)
