"""A fake stack: the test defines the answers of its API and its clients."""

import json

import boto3

from dspy_lambda_infra.verify.stack import Answer, Stack


def answer(status, body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, json.dumps(body).encode() if body is not None else b"", 0.1)


class Client:
    """A client with the given functions as methods."""

    def __init__(self, **methods):
        self.__dict__.update(methods)


class FakeStack(Stack):
    """`answers` is a function of method, path, body, headers and authorized; `request` returns its result."""

    @classmethod
    def make(cls, answers=None, calls=(), kind="rest", auth="iam", deploy=None, **clients):
        outputs = {
            "AnswerFunctionName": "answer",
            "AnswerQueueUrl": "queue",
            "AnswerDeadLetterQueueUrl": "dead",
            "OnFailureQueueUrl": "failed",
        }
        more = {"answers": answers, "calls": calls, "clients": clients}
        session = boto3.Session(region_name="us-east-1")
        return cls(session, "stack", outputs, kind=kind, auth=auth, shared=more, deploy=deploy)

    def client(self, service):
        return self.shared["clients"][service]

    def request(self, method, path, body=b"", headers=None, *, authorized=True):
        return self.shared["answers"](method, path, body, headers or {}, authorized)

    def program_calls(self, program="Answer"):
        return list(self.shared["calls"])

    def resource(self, logical_id):
        return logical_id
