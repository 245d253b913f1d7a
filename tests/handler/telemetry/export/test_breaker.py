from dspy_lambda.telemetry.export.breaker import Breaker


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def pause_of(breaker, clock):
    """Return for how many whole seconds it stays open."""
    start = clock.now
    while breaker.is_open:
        clock.now += 1
    return clock.now - start


def test_pauses_double_up_to_a_minute():
    clock = Clock()
    breaker = Breaker(clock)
    pauses = []
    for _ in range(8):
        breaker.fail()
        pauses.append(pause_of(breaker, clock))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_it_is_closed_at_first_and_after_a_success():
    breaker = Breaker(Clock())
    assert not breaker.is_open
    breaker.fail()
    assert breaker.is_open
    breaker.reset()
    assert not breaker.is_open


def test_a_longer_pause_that_the_server_asks_for_is_granted_up_to_five_minutes():
    clock = Clock()
    breaker = Breaker(clock)
    breaker.fail(30)
    assert pause_of(breaker, clock) == 30
    breaker.fail(1e9)
    assert pause_of(breaker, clock) == 300
    breaker.fail(0.5)
    assert pause_of(breaker, clock) == 4


def test_a_clock_that_is_set_back_ends_the_pause():
    clock = Clock()
    breaker = Breaker(clock)
    breaker.fail()
    clock.now -= 3600
    assert not breaker.is_open
