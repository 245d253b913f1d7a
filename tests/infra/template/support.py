"""Helpers for the template's tests that are not fixtures."""

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build


def template(project):
    return build(load_project(project), project)


def resources(project):
    return template(project)["Resources"]


def variables(found, name="EchoFunction"):
    return found[name]["Properties"]["Environment"]["Variables"]


def statements(found, role="EchoRole"):
    (policy,) = found[role]["Properties"]["Policies"]
    return [(s["Action"], s["Resource"]) for s in policy["PolicyDocument"]["Statement"]]
