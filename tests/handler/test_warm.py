import os
import random

import pytest

from dspy_lambda.dspy_patches import http_client
from dspy_lambda.warm import after_restore, before_snapshot, preconnect, warm
from tests.support import AECHO, ECHO


@pytest.fixture
def serve(make_project, make_serve):
    return lambda source, **variables: make_serve(make_project({"program": source}), **variables)


@pytest.mark.parametrize(("program", "source"), [("Echo", ECHO), ("AEcho", AECHO)])
def test_preconnect_opens_the_connection_of_the_first_call(serve, models, program, source):
    worker = serve(source)
    before = models.stats()["connections"]
    preconnect(worker.environment)
    opened = models.stats()["connections"] - before
    assert worker.post(f"/{program}", {"question": "q"}).status == 200
    assert (opened, models.stats()["connections"] - before) == (1, 1)
    assert models.stats()["requests"] == 1


@pytest.mark.parametrize("source", [ECHO, AECHO])
def test_an_unreachable_provider_delays_init_but_does_not_fail_it(make_project, make_serve, source):
    worker = make_serve(make_project({"program": source}), DSPY_LAMBDA_API_BASE="http://127.0.0.1:9")
    preconnect(worker.environment)


def test_no_connection_is_opened_without_preconnect(serve, models):
    before = models.stats()["connections"]
    warm(serve(AECHO).environment)
    assert models.stats()["connections"] == before
    warm(serve(AECHO, DSPY_LAMBDA_PRECONNECT="1").environment)
    assert models.stats()["connections"] == before + 1


def test_a_snapshot_has_no_connections_and_uses_no_network(serve, models):
    worker = serve(AECHO)
    assert worker.post("/AEcho", {"question": "q"}).status == 200
    (lm,) = worker.environment.models.values()
    assert lm._engine_store
    before = models.stats()
    before_snapshot(worker.environment)
    assert not lm._engine_store
    assert models.stats()["requests"] == before["requests"]
    after_restore(worker.environment, ())
    assert worker.post("/AEcho", {"question": "q"}).status == 200


EMBEDS = """
import dspy

class Embeds(dspy.Module):
    def __init__(self):
        super().__init__()
        self.embed = dspy.Embedder("openai/text-embedding-3-small", caching=False)
        self.index = self.embed(["what the program searches"])

    def forward(self, question: str) -> int:
        return len(self.index)
"""


def test_a_snapshot_has_no_connections_of_embeddings_that_a_program_made_at_init(serve, models, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.url)
    worker = serve(EMBEDS)
    assert http_client._made
    before_snapshot(worker.environment)
    assert not http_client._made


@pytest.mark.parametrize("source", [ECHO, AECHO])
def test_a_snapshot_does_not_wait_for_retries(serve, monkeypatch, source):
    worker = serve(source)
    pauses = []
    monkeypatch.setattr("dspy.clients.execution._delay", lambda *_: pauses.append("retry") or 0)
    before_snapshot(worker.environment)
    assert pauses == []


def test_restored_environments_have_different_random_numbers(serve):
    worker = serve(ECHO)
    random.seed(1)
    state = random.getstate()
    after_restore(worker.environment, ())
    one = random.random()
    random.setstate(state)
    after_restore(worker.environment, ())
    assert random.random() != one


def test_a_restored_environment_reads_its_keys_again(serve, models, monkeypatch):
    worker = serve(AECHO)
    seen = {}

    def resolve(settings):
        seen.update(settings.variables)
        return {"OPENAI_API_KEY": "rotated"}

    monkeypatch.setattr("dspy_lambda.secrets.resolve", resolve)
    monkeypatch.setenv("OPENAI_API_KEY", "of the snapshot")
    after_restore(worker.environment, ("OPENAI_API_KEY",))
    assert seen["OPENAI_API_KEY"] == ""
    assert os.environ["OPENAI_API_KEY"] == "rotated"
    (lm,) = worker.environment.models.values()
    assert lm.kwargs["api_key"] == "rotated"
    assert worker.post("/AEcho", {"question": "q"}).status == 200


def test_the_snapshot_hooks_are_registered_if_snap_start_is_on(serve, monkeypatch):
    snapshot_restore_py = pytest.importorskip("snapshot_restore_py", reason="comes with awslambdaric, on Linux")
    registered = []
    for hook in ("register_before_snapshot", "register_after_restore"):
        monkeypatch.setattr(snapshot_restore_py, hook, lambda f, *args: registered.append((f, args)))
    worker = serve(ECHO, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start")
    worker.environment.keys.names = ("KEY",)
    warm(worker.environment)
    assert registered == [(before_snapshot, (worker.environment,)), (after_restore, (worker.environment, ("KEY",)))]
