"""Two steps for each document, ten documents side by side; synchronous, so in threads."""

import dspy
import pydantic

from dspy_lambda.patterns import Limits, map_inputs_sync
from research_team.lms import FLASH

LIMITS = Limits(parallel=10, attempts=2)


class Claims(pydantic.BaseModel):
    """The supported claims of each document by its position, and why others could not be read."""

    claims: dict[int, list[str]]
    failures: dict[int, str]


class ParallelPipeline(dspy.Module):
    """Extract the claims of each document, and keep those that it supports."""

    def __init__(self, flash_lm: dspy.LM = FLASH) -> None:
        super().__init__()
        self.extract = dspy.Predict("document: str -> claims: list[str]")
        self.check = dspy.Predict("document: str, claims: list[str] -> supported_claims: list[str]")
        self.set_lm(flash_lm)

    def forward(self, documents: list[str]) -> Claims:
        found = map_inputs_sync(self.read, [{"document": document} for document in documents], LIMITS)
        failures = {position: str(failure) for position, failure in found.failures.items()}
        return Claims(claims=found.answers, failures=failures)

    def read(self, document: str) -> list[str]:
        claims = self.extract(document=document).claims
        return self.check(document=document, claims=claims).supported_claims
