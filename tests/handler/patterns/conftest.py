"""Fixtures: LMs of the model server, without retries of their own."""

import itertools
import random

import dspy
import pytest


@pytest.fixture
def make_lm(models):
    """Create an LM; `key` is what the server gets, and it may be told to refuse others."""
    made = []

    def make(key="right", **options):
        made.append(dspy.LM("openai/m", api_base=models.url, api_key=key, cache=False, num_retries=0, **options))
        return made[-1]

    yield make
    for lm in made:
        lm.close()


@pytest.fixture
def make_predict(make_lm):
    """Create a Predict with an LM of its own."""

    def make(key="right"):
        predict = dspy.Predict("question -> answer")
        predict.set_lm(make_lm(key))
        return predict

    return make


@pytest.fixture
def limit_first(models):
    """Let the server limit the rate of exactly its first requests, with that Retry-After in seconds."""

    def behave(requests, *, retry_after_seconds):
        for seed in itertools.count():
            draw = random.Random(seed)
            if all(draw.random() < 0.5 for _ in range(requests)) and draw.random() >= 0.5:
                break
        models.behave(rate_limit_rate=0.5, seed=seed, retry_after_seconds=retry_after_seconds)

    return behave
