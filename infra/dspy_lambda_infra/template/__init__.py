"""Generates template.yaml from a project's programs."""

from dspy_lambda_infra.template.template import build as build
from dspy_lambda_infra.template.template import generate as generate
from dspy_lambda_infra.template.template import render as render
from dspy_lambda_infra.template.template import write as write
