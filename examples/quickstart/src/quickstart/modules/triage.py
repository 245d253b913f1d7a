"""Typed outputs: a Literal, a list and a pydantic model, with the reasoning that led to them."""

from typing import Literal

import dspy
import pydantic


class Contact(pydantic.BaseModel):
    """Who wrote, as far as the message tells."""

    name: str
    email: str | None = None


class Ticket(dspy.Signature):
    """Sort a customer's message into the help desk's queues."""

    message: str = dspy.InputField()
    queue: Literal["billing", "technical", "sales", "other"] = dspy.OutputField()
    tags: list[str] = dspy.OutputField(desc="at most three, lower case")
    contact: Contact = dspy.OutputField()


class Triage(dspy.Module):
    """Read a customer's message and say which queue it belongs to, what it is about, and who wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.ChainOfThought(Ticket)

    async def aforward(self, message: str) -> dspy.Prediction:
        return await self.sort.acall(message=message)
