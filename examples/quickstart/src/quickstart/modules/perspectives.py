"""A fan-out: one question, several views of it at once, and a conclusion."""

import asyncio

import dspy
import pydantic

VIEWS = ("a customer", "an engineer", "a lawyer")


class Discussion(pydantic.BaseModel):
    """What each view has to say, and what follows from all of them."""

    views: dict[str, str]
    conclusion: str


class Perspectives(dspy.Module):
    """Look at a question from several sides and conclude."""

    def __init__(self) -> None:
        super().__init__()
        self.view = dspy.Predict("question: str, perspective: str -> opinion: str")
        self.conclude = dspy.Predict("question: str, opinions: list[str] -> conclusion: str")

    async def aforward(self, question: str, perspectives: list[str] = list(VIEWS)) -> Discussion:
        calls = (self.view.acall(question=question, perspective=view) for view in perspectives)
        opinions = [prediction.opinion for prediction in await asyncio.gather(*calls)]
        end = await self.conclude.acall(question=question, opinions=opinions)
        return Discussion(views=dict(zip(perspectives, opinions, strict=True)), conclusion=end.conclusion)
