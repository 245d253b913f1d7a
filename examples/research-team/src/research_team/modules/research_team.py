"""A team on two tiers: searchers with a tool and analyzers on the quick one, a synthesizer on the strong one."""

import dspy
import pydantic

from dspy_lambda.patterns import Limits, map_inputs
from research_team.library import search_library
from research_team.lms import FLASH, PRO
from research_team.perspectives import PERSPECTIVES

LIMITS = Limits(parallel=len(PERSPECTIVES), reserve_seconds=10)


class Report(pydantic.BaseModel):
    """The report, and the perspectives that it lacks."""

    report: str
    missing: dict[str, str]


class ResearchTeam(dspy.Module):
    """Research a question from six perspectives at once, and write a report."""

    def __init__(self, flash_lm: dspy.LM = FLASH, pro_lm: dspy.LM = PRO) -> None:
        super().__init__()
        searching = "question: str, perspective: str -> findings: list[str]"
        self.searcher = dspy.ReAct(searching, tools=[search_library], max_iters=4)
        self.searcher.set_lm(flash_lm)
        self.analyzer = dspy.Predict("question: str, perspective: str, findings: list[str] -> analysis: str")
        self.analyzer.set_lm(flash_lm)
        self.synthesizer = dspy.ChainOfThought("question: str, analyses: dict[str, str] -> report: str")
        self.synthesizer.set_lm(pro_lm)

    async def aforward(self, question: str) -> Report:
        inputs = {name: {"question": question, "perspective": name} for name in PERSPECTIVES}
        team = (await map_inputs(self.research, inputs, LIMITS)).require(3)
        end = await self.synthesizer.acall(question=question, analyses=team.answers)
        return Report(report=end.report, missing={name: str(failure) for name, failure in team.failures.items()})

    async def research(self, question: str, perspective: str) -> str:
        found = await self.searcher.acall(question=question, perspective=perspective)
        step = await self.analyzer.acall(question=question, perspective=perspective, findings=found.findings)
        return step.analysis
