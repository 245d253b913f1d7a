import re

import pytest

from tests.conftest import ROOT

# Messages from the system, Lambda or CloudFormation.
FOREIGN = {
    "lm.history",
    "dspy.inspect_history()",
    "signal: killed",
    "Read-only file system",
    "already exists",
    "port 3000: Address already in use",
}
ROWS = [
    line.split(" | ")[0].removeprefix("| ")
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| symptom", "|---"))
]


@pytest.fixture(scope="module")
def sources():
    paths = [*(ROOT / "handler").rglob("*.py"), *(ROOT / "infra").rglob("*.py"), ROOT / "docs" / "meanings.yaml"]
    return "\n".join(path.read_text() for path in paths)


@pytest.mark.parametrize("symptom", ROWS)
def test_quoted_messages_exist_in_the_code(symptom, sources):
    for quoted in set(re.findall(r"`([^`]+)`", symptom)) - FOREIGN:
        for part in filter(None, (part.strip() for part in quoted.split("..."))):
            rest = part.partition(" ")[2]  # the first word may be a value
            assert part in sources or (rest and rest in sources), part
