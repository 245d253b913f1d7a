"""Write, judge, improve: until the text is good enough or the rounds are used up."""

import dspy
import pydantic

from research_team.lms import FLASH, PRO


class Judge(dspy.Signature):
    """Judge how well a text fulfills its task, and say what would improve it most."""

    task: str = dspy.InputField()
    text: str = dspy.InputField()
    score: float = dspy.OutputField(ge=0, le=1)
    advice: str = dspy.OutputField()


class Graded(pydantic.BaseModel):
    """A text with its score and the advice that it came with."""

    text: str
    score: float
    advice: str


class QualityGate(dspy.Module):
    """Write a text, improve it until its score reaches the gate, and return the best one."""

    def __init__(self, flash_lm: dspy.LM = FLASH, pro_lm: dspy.LM = PRO) -> None:
        super().__init__()
        self.write = dspy.Predict("task: str, last_text: str, advice: str -> text: str")
        self.write.set_lm(flash_lm)
        self.judge = dspy.Predict(Judge)
        self.judge.set_lm(pro_lm)

    async def aforward(self, task: str, gate: float = 0.8, rounds: int = 3) -> Graded:
        best = last = await self.attempt(task, "", "")
        for _ in range(rounds - 1):
            if last.score >= gate:
                break
            last = await self.attempt(task, last.text, last.advice)
            best = max(best, last, key=lambda graded: graded.score)
        return best

    async def attempt(self, task: str, last_text: str, advice: str) -> Graded:
        text = (await self.write.acall(task=task, last_text=last_text, advice=advice)).text
        verdict = await self.judge.acall(task=task, text=text)
        return Graded(text=text, score=verdict.score, advice=verdict.advice)
