from dspy_lambda_infra.template.syntax import get_att, load
from tests.conftest import ROOT


def test_the_text_is_yaml_with_short_intrinsics():
    found = load((ROOT / "template.yaml").read_text())
    mapping = found["Resources"]["AnswerFunction"]["Properties"]["Events"]["Queue"]["Properties"]
    assert mapping["Queue"] == get_att("AnswerQueue.Arn")
