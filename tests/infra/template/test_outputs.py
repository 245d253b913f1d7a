import pytest

from dspy_lambda_infra.template.syntax import ref
from tests.infra.template.support import template
from tests.support import ECHO


@pytest.mark.parametrize(("kind", "address"), [("rest", "https://${Api}."), ("http", "https://${HttpApi}.")])
def test_the_api_url_output_matches_the_kind_of_api(make_project, kind, address):
    project = make_project({"echo": ECHO}, **{"lambda": {"api": {"kind": kind}}})
    assert template(project)["Outputs"]["ApiUrl"]["Value"]["Fn::Sub"].startswith(address)


def test_the_dashboard_link_exists_only_in_the_commercial_partition(make_project):
    """The consoles for China and GovCloud have other addresses."""
    found = template(make_project({"echo": ECHO}))
    condition = found["Conditions"][found["Outputs"]["DashboardUrl"]["Condition"]]
    assert condition == {"Fn::Equals": [ref("AWS::Partition"), "aws"]}
