import pytest


@pytest.fixture
def credentials(monkeypatch):
    """Credentials with which moto accepts requests, whatever the developer's are."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
