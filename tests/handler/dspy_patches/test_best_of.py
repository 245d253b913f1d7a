"""`dspy.Refine` and `dspy.BestOfN` keep the attempts of calls apart."""

import json

import pytest

from tests.support import failures, problem, sqs

MODULES = pytest.mark.parametrize("module", ["Refine", "BestOfN"])


def source(module, attempts):
    return f"""
    def never(_, __):
        return 0.0
    class FailsOnce(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        def forward(self, question: str):
            if question == "fail once" and self.predict.lm.kwargs["rollout_id"] == 0:
                raise ValueError("secret")
            return self.predict(question=question)
    class Best(dspy.Module):
        def __init__(self):
            super().__init__()
            self.best = dspy.{module}(FailsOnce(), N={attempts}, reward_fn=never, threshold=1.0)
        def forward(self, question: str) -> dspy.Prediction:
            return self.best(question=question)
    """


@MODULES
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_call_fails_if_the_model_failed_every_attempt(
    make_project, make_serve, models, records, capsys, module, attempts
):
    serve = make_serve(make_project({"best": source(module, attempts)}))
    models.behave(unauthorized_rate=1)
    answer = serve.post("/Best", {"question": "q"})
    assert (answer.status, problem(answer)["title"]) == (502, "Model unavailable")
    assert failures(serve(sqs({"program": "Best", "inputs": {"question": "q"}}))) == ["m0"]
    assert {call["outcome"] for call in records().calls} == {"model_error"}
    assert "Attempt" not in "".join(capsys.readouterr())


@MODULES
def test_failed_attempts_of_one_call_do_not_count_in_others(make_project, make_serve, records, capsys, module):
    serve = make_serve(make_project({"best": source(module, 3)}))
    for _ in range(8):
        outputs = serve({"program": "Best", "inputs": {"question": "fail once"}})["outputs"]
        assert outputs["answer"] == "gpt-4.1-nano: fail once"
    logged = records()
    assert [line["level"] for line in logged.lines if "dspy.predict" in line.get("message", "")] == ["WARN"] * 8
    assert "secret" not in json.dumps(logged.lines) + "".join(capsys.readouterr())
