"""Six experts at once, and a conclusion from those who answered."""

import dspy
import pydantic

from dspy_lambda.patterns import Limits, map_inputs
from research_team.lms import FLASH, PRO
from research_team.perspectives import PERSPECTIVES

# The last ten seconds before the deadline are for the conclusion.
LIMITS = Limits(parallel=len(PERSPECTIVES), reserve_seconds=10)


class Panel(pydantic.BaseModel):
    """The experts' views, why others are missing, and what follows."""

    views: dict[str, str]
    missing: dict[str, str]
    conclusion: str


class ExpertPanel(dspy.Module):
    """Ask six experts, and conclude if at least four of them answer in time."""

    def __init__(self, flash_lm: dspy.LM = FLASH, pro_lm: dspy.LM = PRO) -> None:
        super().__init__()
        self.expert = dspy.Predict("question: str, perspective: str -> view: str")
        self.expert.set_lm(flash_lm)
        self.conclude = dspy.Predict("question: str, views: dict[str, str] -> conclusion: str")
        self.conclude.set_lm(pro_lm)

    async def aforward(self, question: str) -> Panel:
        inputs = {name: {"question": question, "perspective": name} for name in PERSPECTIVES}
        experts = (await map_inputs(self.expert, inputs, LIMITS)).require(4)
        views = {name: answer.view for name, answer in experts.answers.items()}
        missing = {name: str(failure) for name, failure in experts.failures.items()}
        end = await self.conclude.acall(question=question, views=views)
        return Panel(views=views, missing=missing, conclusion=end.conclusion)
