"""Placeholder."""

from __future__ import annotations
from dspy_lambda_infra.logs.records import Record
from dspy_lambda_infra.logs.totals import Totals


class Report:
    def add(self, record: Record) -> None: ...
    def html(self, totals: Totals) -> str:
        return ""
