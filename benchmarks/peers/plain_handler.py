"""A DSPy program behind FastAPI and Mangum as the tutorials show it, with Powertools' logger, metrics and tracer."""

import os

import boto3
import dspy
from aws_lambda_powertools import Logger, Metrics, Tracer
from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel

logger = Logger(service="plain")
metrics = Metrics(namespace="Plain", service="plain")
os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
tracer = Tracer(service="plain")
queue = boto3.client("sqs", region_name="us-east-1")

dspy.configure(lm=dspy.LM("openai/gpt-4.1-nano", api_base=os.environ["MODEL_URL"], api_key="none", cache=False))


class Summarise(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shorten = dspy.Predict("text: str, sentences: int -> summary: str")

    def forward(self, text: str, sentences: int = 2) -> dspy.Prediction:
        return self.shorten(text=text, sentences=sentences)

    async def aforward(self, text: str, sentences: int = 2) -> dspy.Prediction:
        return await self.shorten.acall(text=text, sentences=sentences)


program = Summarise()
app = FastAPI()


class Inputs(BaseModel):
    text: str
    sentences: int = 2


@app.post("/Summarise")
async def summarise(inputs: Inputs) -> dict[str, str]:
    prediction = await program.acall(text=inputs.text, sentences=inputs.sentences)
    logger.info("call")
    metrics.add_metric(name="Calls", unit="Count", value=1)
    return {"summary": prediction.summary}


lambda_handler = logger.inject_lambda_context(metrics.log_metrics(Mangum(app)))
