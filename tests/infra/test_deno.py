import pytest

from dspy_lambda_infra.deno import why_deno
from dspy_lambda_infra.project import load_project
from tests.support import ECHO, RLM

OWN = """
class Calculate(dspy.Module):
    def __init__(self):
        super().__init__()
        self.think = dspy.RLM("question -> answer", interpreter_factory=dict)

    def forward(self, question: str) -> dspy.Prediction:
        return self.think(question=question)
"""


@pytest.mark.parametrize(
    ("source", "why"), [(RLM, "Calculate.think (RLM)"), (OWN, None), (ECHO, None)], ids=["RLM", "own", "Echo"]
)
def test_the_part_of_a_program_that_needs_deno_is_named(make_project, source, why):
    (function,) = load_project(make_project({"module": source})).functions.values()
    assert why_deno(function.program) == why


def test_a_function_with_deno_has_a_writable_deno_folder(make_project):
    functions = load_project(make_project({"calculate": RLM, "echo": ECHO})).functions
    assert functions["Calculate"].environment["DENO_DIR"] == "/tmp/deno"
    assert "DENO_DIR" not in functions["Echo"].environment
