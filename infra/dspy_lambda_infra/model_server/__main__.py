"""Runs a model server in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import sys

from dspy_lambda_infra.model_server.app import ModelApp
from dspy_lambda_infra.model_server.behavior import Behavior
from dspy_lambda_infra.model_server.server import serve


def main() -> None:
    """Run a model server in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m dspy_lambda_infra.model_server", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="use 0.0.0.0 to accept calls from containers")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--until-stdin-closes", action="store_true")
    arguments = parser.parse_args()
    app = ModelApp(Behavior(delay_seconds=arguments.delay)).application()
    try:
        asyncio.run(serve(app, arguments.host, arguments.port, arguments.until_stdin_closes))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
