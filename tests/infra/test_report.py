import json

import pytest

from dspy_lambda_infra.report import report


@pytest.mark.parametrize("as_json", [True, False])
def test_report_prints_the_text_or_one_json_document(capsys, as_json):
    report("two\nlines", {"name": "ü"}, as_json=as_json)
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert (json.loads(out) == {"name": "ü"}) if as_json else (out == "two\nlines\n")
