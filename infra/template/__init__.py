"""Programs -> template.yaml."""

from infra.template.template import build as build
from infra.template.template import render as render
