"""A native async program: `aforward` awaits, so one environment runs many at once without threads."""

import dspy


class Summarise(dspy.Module):
    """Shorten a text, if asked to at most `sentences` sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.shorten = dspy.Predict("text: str, sentences: int -> summary: str")

    async def aforward(self, text: str, sentences: int = 2) -> dspy.Prediction:
        return await self.shorten.acall(text=text, sentences=sentences)
