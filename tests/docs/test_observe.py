"""What docs/observe.md says about masking and statuses is what happens."""

import json
import re

import pytest
import yaml

from dspy_lambda_infra.doctor import collectors
from tests.conftest import ROOT
from tests.docs.pages import blocks_of

PAGE = ROOT / "docs" / "observe.md"
BLOCKS = list(blocks_of(PAGE))


def test_the_masking_example_masks_what_the_page_says(make_project, make_serve, records):
    (program,) = [block for block in BLOCKS if "def hide" in block.text]
    (config,) = [block for block in BLOCKS if "mask_with" in block.text and block.language == "yaml"]
    telemetry = yaml.safe_load(config.text)["telemetry"]
    root = make_project({"reply": program.text}, telemetry={})
    telemetry |= {"traces": "none", "mask_with": telemetry["mask_with"].replace("support", root.name)}
    settings = yaml.safe_load((root / "dspy.config.yaml").read_text()) | {"telemetry": telemetry}
    (root / "dspy.config.yaml").write_text(yaml.safe_dump(settings))
    inputs = {"message": "I am 123-45-6789, account A-1234567", "account": "A-1234567"}
    assert make_serve(root).post("/Reply", inputs).status == 200
    (call,) = records().calls
    assert call["inputs"]["account"] == "...567"
    assert call["inputs"]["message"].startswith("I am ***")
    assert not re.search("123-45-6789|A-1234567", json.dumps(call))


@pytest.mark.parametrize("status", [302, 401, 404, 415, 400])
def test_the_troubleshooting_table_has_every_status_that_doctor_explains(status):
    table = PAGE.read_text().rpartition("## No trace arrives")[2]
    symptoms = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert collectors._meaning(status, "", None, False)
    assert any(str(status) in symptom for symptom in symptoms)
