"""A program for every module of DSPy, and for combinations of them."""

import os
from typing import Any

import dspy
import numpy as np
from dspy.primitives.code_interpreter import FinalOutput
from pydantic import BaseModel

dspy.configure(rm=lambda query, k: [dspy.Example(long_text=f"passage {n} on {query}") for n in range(k)])


class StubInterpreter:
    """Returns the same result for whatever a model wrote, and nothing for DSPy's own setup code."""

    def __init__(self) -> None:
        self.tools: dict[str, Any] = {}  # dspy.RLM stores its own there

    def start(self) -> None: ...

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        return FinalOutput({"answer": "computed"}) if "sky" in code else None

    def shutdown(self) -> None: ...


def look_up(topic: str = "any") -> str:
    """Look a topic up."""
    return f"found {topic}"


async def alook_up(topic: str = "any") -> str:
    """Look a topic up."""
    return f"found {topic}"


def embed(texts: list[str]) -> list[list[float]]:
    return [[float("sky" in text), float("sea" in text), 1.0] for text in texts]


def never(_: dict[str, Any], __: dspy.Prediction) -> float:
    return 0.0


def shorter(_: dict[str, Any], prediction: dspy.Prediction) -> float:
    return -float(len(prediction.answer))


class _Asks(dspy.Module):
    """Base of most programs below: one module that answers a question."""

    inner: dspy.Module

    def forward(self, question: str) -> dspy.Prediction:
        return self.inner(question=question)


class UsesPredict(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")


class UsesPredictOnLoop(UsesPredict):
    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.inner.acall(question=question)


class UsesChainOfThought(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ChainOfThought("question -> answer")


class UsesReAct(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ReAct("question -> answer", tools=[look_up], max_iters=2)


class UsesReActOnLoop(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ReAct("question -> answer", tools=[alook_up], max_iters=2)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.inner.acall(question=question)


class UsesReActV2(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ReActV2("question -> answer", tools=[look_up], max_iters=1)


class UsesRefine(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Refine(dspy.Predict("question -> answer"), N=3, reward_fn=shorter, threshold=1.0)


class UsesBestOfN(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.BestOfN(dspy.Predict("question -> answer"), N=3, reward_fn=never, threshold=1.0)


class UsesBestOfNInRefine(_Asks):
    def __init__(self):
        super().__init__()
        best = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=never, threshold=1.0)
        self.inner = dspy.Refine(best, N=2, reward_fn=never, threshold=0.0)


class UsesParallel(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")

    def forward(self, question: str) -> list[str]:
        pairs = [(self.inner, {"question": f"{question} {n}"}) for n in range(3)]
        return [found.answer for found in dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)]


class UsesBatch(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")

    def forward(self, question: str) -> list[str]:
        examples = [dspy.Example(question=f"{question} {n}").with_inputs("question") for n in range(3)]
        return [found.answer for found in self.inner.batch(examples, disable_progress_bar=True)]


class UsesMultiChainComparison(dspy.Module):
    def __init__(self):
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")
        self.compare = dspy.MultiChainComparison("question -> answer", M=2)

    def forward(self, question: str) -> dspy.Prediction:
        return self.compare([self.think(question=question) for _ in range(2)], question=question)


class UsesProgramOfThought(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ProgramOfThought("question -> answer", interpreter_factory=StubInterpreter)


class UsesCodeAct(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.CodeAct(
            "question -> answer", tools=[look_up], max_iters=2, interpreter_factory=StubInterpreter
        )


class UsesRLM(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.RLM("question -> answer", max_iters=2, interpreter_factory=StubInterpreter)


class UsesRLMOnLoop(UsesRLM):
    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.inner.acall(question=question)


class UsesProgramOfThoughtWithoutInterpreter(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.ProgramOfThought("question -> answer")


class UsesCodeActWithoutInterpreter(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.CodeAct("question -> answer", tools=[look_up])


class UsesRLMWithoutInterpreter(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.RLM("question -> answer")


class UsesFlex(_Asks):
    """Uses an interpreter without Deno: another Python process, which is not a sandbox."""

    def __init__(self):
        super().__init__()
        self.inner = dspy.Flex("question -> answer", interpreter_factory=dspy.LocalInterpreter)


class UsesFlexWithoutInterpreter(_Asks):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Flex("question -> answer")


class UsesKNN(dspy.Module):
    def __init__(self):
        super().__init__()
        known = [dspy.Example(question=f"the {of}", answer=of).with_inputs("question") for of in ("sky", "sea")]
        self.nearest = dspy.KNN(k=1, trainset=known, vectorizer=dspy.Embedder(embed, caching=False))
        self.inner = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dict[str, str]:
        demos = self.nearest(question=question)
        found = self.inner(question=question, demos=demos)
        return {"nearest": demos[0].answer, "answer": found.answer}


class UsesMajority(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer", n=3, temperature=1.0)

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.majority(self.inner(question=question))


class UsesStreamify(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dict[str, Any]:
        listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
        stream = dspy.streamify(self.inner, stream_listeners=listeners, is_async_program=True)
        values = [value async for value in stream(question=question)]
        chunks = [value.chunk for value in values if isinstance(value, dspy.streaming.StreamResponse)]
        return {"streamed": "".join(chunks), "in_chunks": len(chunks) > 1, "answer": values[-1].answer}


class UsesStreamifyInThread(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return list(dspy.streamify(self.inner, async_streaming=False)(question=question))[-1]


class UsesAsyncify(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        return await dspy.asyncify(self.inner)(question=question)


class UsesSyncify(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = dspy.syncify(UsesPredictOnLoop(), in_place=False)

    def forward(self, question: str) -> dspy.Prediction:
        return self.inner(question=question)


class UsesEmbedder(dspy.Module):
    def __init__(self):
        super().__init__()
        self.embed = dspy.Embedder(embed, caching=False)

    def forward(self, question: str) -> list[float]:
        return self.embed(question).tolist()


class UsesEmbedderOnLoop(UsesEmbedder):
    async def aforward(self, question: str) -> list[float]:
        return (await self.embed.acall(question)).tolist()


class UsesEmbeddings(dspy.Module):
    def __init__(self):
        super().__init__()
        self.search = dspy.Embeddings(corpus=["the sky", "the sea"], embedder=lambda texts: np.array(embed(texts)), k=1)

    def forward(self, question: str) -> dspy.Prediction:
        return self.search(question)


class UsesEmbeddingsWithScores(dspy.Module):
    def __init__(self):
        super().__init__()
        corpus = ["the sky", "the sea"]
        self.search = dspy.EmbeddingsWithScores(corpus=corpus, embedder=lambda texts: np.array(embed(texts)), k=1)

    def forward(self, question: str) -> dspy.Prediction:
        return self.search(question)


class UsesRetrieve(dspy.Module):
    def __init__(self):
        super().__init__()
        self.retrieve = dspy.Retrieve(k=2)

    def forward(self, question: str) -> dspy.Prediction:
        return self.retrieve(question)


def own_lm() -> dspy.LM:
    return dspy.LM("openai/of-its-own", api_base=os.environ["EVERY_MODULE_API_BASE"], api_key="k", cache=False)


class SetsLM(UsesPredict):
    def __init__(self):
        super().__init__()
        self.set_lm(own_lm())


class SetsLMInRefine(_Asks):
    def __init__(self):
        super().__init__()
        predict = dspy.Predict("question -> answer")
        predict.set_lm(own_lm())
        self.inner = dspy.Refine(predict, N=2, reward_fn=never, threshold=0.0)


class UsesContext(UsesPredict):
    def forward(self, question: str) -> dspy.Prediction:
        with dspy.context(lm=dspy.settings.lm.copy(temperature=0.1), adapter=dspy.JSONAdapter()):
            return self.inner(question=question)


class IsCompiled(UsesPredict):
    """Has the state that an optimizer produces: an instruction and a demo."""

    def __init__(self):
        super().__init__()
        trained = dspy.Predict("question -> answer")
        trained.signature = trained.signature.with_instructions("Answer as a sailor.")
        trained.demos = [dspy.Example(question="Where?", answer="At sea.")]
        self.inner.load_state(trained.dump_state())

    def forward(self, question: str) -> dict[str, Any]:
        found = self.inner(question=question)
        return {"answer": found.answer, "demos": len(self.inner.demos), "as": self.inner.signature.instructions}


class Row(BaseModel):
    name: str
    size: int


class Nests(dspy.Module):
    """Modules within modules: a chain that refines a program that runs in parallel."""

    def __init__(self):
        super().__init__()
        self.fan = UsesParallel()
        self.best = dspy.BestOfN(UsesChainOfThought(), N=2, reward_fn=never, threshold=1.0)
        self.rows = dspy.Predict(dspy.Signature("question -> rows: list[Row]", custom_types={"Row": Row}))

    def forward(self, question: str) -> dict[str, Any]:
        best = self.best(question=question)
        return {"fan": self.fan(question=question), "best": best.answer, "rows": self.rows(question=question).rows}
