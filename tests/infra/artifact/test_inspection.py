import pytest

from dspy_lambda.errors import ConfigError
from tests.support import ECHO, RLM


def test_a_program_that_needs_deno_is_refused_if_the_artifact_lacks_it(make_project, quick_build, stand_ins):
    project = make_project({"calculate": RLM, "echo": ECHO})
    said = []
    with pytest.raises(ConfigError, match=r"Calculate.think \(RLM\) runs Python in Deno, which the artifact lacks"):
        quick_build(project, "Calculate", said=said)
    stand_ins.add("deno", files={"deno-1.0.data/scripts/deno": "\x7fELF"})
    (project / "requirements.txt").write_text("deno")
    said.clear()
    built = quick_build(project, "Calculate", said=said)
    assert (built.folder / "bin" / "deno").is_file()
    assert not [line for line in said if line.startswith("warning")]
    said.clear()
    quick_build(project, "Echo", said=said)
    assert said == []


def test_a_layer_may_provide_deno(make_project, quick_build):
    layer = "arn:aws:lambda:eu-west-1:123456789012:layer:deno:1"
    project = make_project({"calculate": RLM}, **{"lambda": {"layers": [layer]}})
    said = []
    quick_build(project, "Calculate", said=said)
    assert said[0].startswith("warning: Calculate.think (RLM) runs Python in Deno, which the artifact lacks")
