import pytest

from tests.infra.template.support import resources
from tests.support import ECHO


@pytest.fixture
def make(make_project):
    """Return the resources of a project with one program, given its `lambda` section."""

    def build_from(settings=None, modules=None, **config):
        return resources(make_project(modules or {"echo": ECHO}, **{"lambda": settings or {}}, **config))

    return build_from
