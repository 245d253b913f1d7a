import json

import dspy
import pytest

from tests.support import AECHO, ECHO

FAST = {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY", "cache": False}
REPORTS = """
class Reports(dspy.Module):
    def forward(self, question: str):
        adapter = dspy.settings.adapter
        extracts = getattr(adapter, "extraction_model", None)
        return [type(adapter).__name__, extracts is dspy.settings.lm]
class Others(Reports):
    pass
"""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("chat", "ChatAdapter"), ("json", "JSONAdapter"), ("xml", "XMLAdapter"), ("two_step", "TwoStepAdapter")],
)
def test_a_model_names_the_adapter_of_its_programs_and_a_program_its_own(make_project, make_serve, name, kind):
    models = {"default": "fast", "registry": {"fast": {**FAST, "adapter": name}}}
    project = make_project({"reports": REPORTS}, models=models, program_adapters={"Others": "chat"})
    serve = make_serve(project)
    before = dspy.settings.adapter
    assert json.loads(serve.post("/Reports", {"question": "q"}).body)["result"] == [kind, name == "two_step"]
    assert json.loads(serve.post("/Others", {"question": "q"}).body)["result"][0] == "ChatAdapter"
    assert dspy.settings.adapter is before


@pytest.mark.parametrize("name", ["chat", "json", "two_step"])
@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_programs_answer_with_each_adapter(make_project, make_serve, models, records, name, program):
    config = {"models": {"default": "fast", "registry": {"fast": FAST}}, "program_adapters": {program: name}}
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}, **config))
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    (call,) = records().calls
    assert call["lm_calls"] == models.stats()["requests"] == (2 if name == "two_step" else 1)
