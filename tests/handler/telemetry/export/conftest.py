"""Fixtures of the tests of the exporter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.handler.telemetry.export.collector_server import CollectorServer


@pytest.fixture
def server() -> Iterator[CollectorServer]:
    """A collector."""
    found = CollectorServer()
    yield found
    found.close()
