"""A synchronous program: one Predict."""

import dspy


class Answer(dspy.Module):
    """Answer a question in a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.Predict("question: str -> answer: str")

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(question=question)
