"""The exporter with collectors that are healthy, dead, slow, or answer nonsense, on loopback."""

import gc
import os
import threading
import weakref

import pytest

from dspy_lambda.telemetry.export.collector import collector
from dspy_lambda.telemetry.export.exporter import Exporter, Reply
from dspy_lambda.telemetry.export.span_queue import BATCH_SPANS, MAX_SPANS
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace
from tests.handler.telemetry.export.collector_server import OK, answer, closed_port
from tests.handler.telemetry.export.test_otlp import decode


def spans(count=3, **attributes):
    trace = Trace()
    for number in range(count):
        trace.start(f"span {number}", INTERNAL, None, attributes).end()
    return trace.spans


class Log(list):
    def __call__(self, level, message, fields):
        self.append((level, message, fields))


@pytest.fixture
def make():
    made = []

    def build(url, **options):
        found = collector(url, None)
        log = Log()
        exporter = Exporter(found.send, {}, log, drop_connection=found.connection.close, **options)
        exporter.breaker._clock = lambda: exporter.now
        exporter.now, exporter.log = 1000.0, log
        made.append(exporter)
        return exporter

    yield build
    for exporter in made:
        exporter.close(0)


def names(server):
    decoded = [decode(request.body) for request in server.received]
    return [span.name for request in decoded for span in request.resource_spans[0].scope_spans[0].spans]


def test_spans_arrive_in_one_request_over_one_connection(server, make):
    exporter = make(server.url)
    for _ in range(3):
        exporter.add(spans(2))
        exporter.add(spans(1))
        assert exporter.flush(5)
    assert names(server) == ["span 0", "span 1", "span 0"] * 3
    assert (len(server.received), server.connections) == (3, 1)
    assert (exporter.take_dropped(), exporter.log) == (0, [])


def test_nothing_is_sent_without_spans(server, make):
    exporter = make(server.url)
    exporter.add([])
    assert exporter.flush(5)
    assert server.connections == 0


def test_without_an_interval_nothing_is_sent_before_a_flush(server, make):
    exporter = make(server.url)
    exporter.add(spans(BATCH_SPANS))
    assert not server.arrived.acquire(timeout=0.05)


def test_with_an_interval_spans_leave_by_themselves(server, make):
    exporter = make(server.url, interval=0.05)
    exporter.add(spans(1))
    assert server.arrived.acquire(timeout=10)


def test_with_an_interval_many_spans_leave_at_once(server, make):
    exporter = make(server.url, interval=3600)
    exporter.add(spans(1))  # starts the thread, which sends it
    assert server.arrived.acquire(timeout=10)
    exporter.add(spans(BATCH_SPANS))
    assert server.arrived.acquire(timeout=10)


def test_many_spans_are_sent_in_several_requests(server, make):
    exporter = make(server.url)
    for _ in range(10):
        exporter.add(spans(200))
    assert exporter.flush(10)
    assert len(names(server)) == 2000
    assert len(server.received) > 1


def test_what_nobody_takes_is_bounded_and_counted(make):
    exporter = make(f"http://127.0.0.1:{closed_port()}")
    for _ in range(50):
        exporter.add(spans(300))
        exporter.flush(5)
        exporter.now += 100
    assert exporter._queue.spans <= MAX_SPANS
    assert exporter.take_dropped() == 50 * 300 - exporter._queue.spans == exporter.dropped["queue full"]
    assert exporter.take_dropped() == 0


def test_long_texts_are_bounded_too(make):
    exporter = make(f"http://127.0.0.1:{closed_port()}")
    for _ in range(30):
        exporter.add(spans(10, text="x" * 100_000))
    assert exporter._queue.bytes <= 20_000_000
    assert exporter._queue.spans + exporter.take_dropped() == 300
    exporter.flush(5)  # now some are encoded
    assert 0 < exporter._queue.bytes <= 20_500_000


def test_spans_that_a_dead_collector_did_not_get_arrive_later(server, make):
    port = closed_port()
    exporter = make(f"http://127.0.0.1:{port}")
    exporter.add(spans(2))
    assert not exporter.flush(5)
    exporter.now += 1
    exporter._send = collector(server.url, None).send
    exporter.add(spans(1))
    assert exporter.flush(5)
    assert names(server) == ["span 0", "span 1", "span 0"]
    assert [entry[:2] for entry in exporter.log] == [
        ("WARNING", "traces cannot be exported"),
        ("INFO", "traces are exported again"),
    ]


def test_a_flush_returns_at_once_during_the_pause_after_a_failure(make):
    exporter = make(f"http://127.0.0.1:{closed_port()}")
    exporter.add(spans())
    exporter.flush(5)
    attempts = []
    exporter._send = lambda body, ends: attempts.append(body) or Reply("sent")
    assert not exporter.flush(3600)
    assert not attempts
    exporter.now += 1
    assert exporter.flush(5)
    assert attempts


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 413, 500])
def test_refused_spans_are_dropped_and_counted_and_one_line_says_what_to_do(server, make, status):
    server.reply = answer(status, location=server.url)
    exporter = make(server.url)
    for _ in range(3):
        exporter.add(spans(2))
        exporter.flush(5)
        exporter.now += 60
    assert len(server.received) == 3  # the redirect was not followed
    assert (exporter.take_dropped(), exporter.dropped) == (6, {"refused": 6})
    ((level, message, fields),) = exporter.log
    assert (level, message) == ("WARNING", "traces cannot be exported")
    assert str(status) in fields["reason"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_collector_gets_the_spans_when_it_wants_them(server, make, status):
    server.reply = answer(status, retry_after="20")
    exporter = make(server.url)
    exporter.add(spans(2))
    assert not exporter.flush(5)
    server.reply = OK
    exporter.now += 19
    assert not exporter.flush(5)
    exporter.now += 1
    assert exporter.flush(5)
    assert names(server) == ["span 0", "span 1"] * 2
    assert exporter.take_dropped() == 0


def test_rejected_spans_are_counted(server, make):
    server.reply = answer(200, b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}')
    exporter = make(server.url)
    exporter.add(spans(3))
    assert exporter.flush(5)
    assert (exporter.take_dropped(), exporter.dropped) == (2, {"rejected": 2})


def test_no_more_rejected_spans_are_counted_than_were_sent(server, make):
    server.reply = answer(200, b'{"partialSuccess":{"rejectedSpans":"9000000","errorMessage":"too old"}}')
    exporter = make(server.url)
    exporter.add(spans(3))
    assert exporter.flush(5)
    assert (exporter.take_dropped(), exporter.dropped) == (3, {"rejected": 3})


def test_a_slow_collector_costs_its_time_limit_once(server, make):
    server.reply = server.hang
    exporter = make(server.url, send_seconds=0.1)
    exporter.add(spans(2))
    exporter.flush(5)
    assert (exporter.take_dropped(), exporter.dropped) == (2, {"failed": 2})
    exporter.add(spans(1))
    assert not exporter.flush(3600)
    assert len(server.received) == 1


def test_a_flush_does_not_wait_longer_than_it_may(server, make):
    server.reply = server.hang
    exporter = make(server.url, send_seconds=20)
    exporter.add(spans(2))
    assert not exporter.flush(0.05)


def test_after_a_flush_in_vain_the_next_one_does_not_wait_until_the_request_has_ended(make):
    exporter = make("http://127.0.0.1:1")
    ended = threading.Event()
    exporter._send = lambda body, ends: ended.wait(30) and Reply("sent")
    exporter.add(spans(2))
    assert not exporter.flush(0.05)
    assert not exporter.flush(3600)
    ended.set()
    while exporter.breaker.is_open:
        pass
    assert exporter.flush(10)


def test_garbage_is_a_failure(server, make):
    server.reply = server.trickle(b"\0garbage", b"\xff" * 10_000)
    exporter = make(server.url)
    exporter.add(spans(2))
    exporter.flush(5)
    assert exporter.dropped == {"failed": 2}
    assert "garbage" not in str(exporter.log)


def test_an_error_of_its_own_does_not_end_the_thread(make):
    exporter = make("http://127.0.0.1:1")
    exporter._send = lambda body, ends: 1 / 0
    exporter.add(spans(2))
    exporter.flush(5)
    assert exporter.dropped == {"failed": 2}
    exporter.now += 1
    exporter._send = lambda body, ends: Reply("sent")
    exporter.add(spans(2))
    assert exporter.flush(5)


def test_an_error_of_the_log_does_not_end_the_thread(server, make):
    exporter = make(f"http://127.0.0.1:{closed_port()}")
    exporter._log = lambda *_: 1 / 0
    exporter.add(spans(2))
    exporter.flush(5)
    exporter.now += 60
    exporter._log, exporter._send = exporter.log, collector(server.url, None).send
    assert exporter.flush(5)


def test_closing_sends_what_waits_and_may_be_repeated(server, make):
    exporter = make(server.url)
    exporter.add(spans(2))
    exporter.close(5)
    exporter.close(5)
    exporter.add(spans(3))
    assert exporter.flush(5)
    assert names(server) == ["span 0", "span 1"]
    assert exporter.dropped == {"closed": 3}


def test_a_snapshots_spans_and_connection_are_discarded_when_it_is_restored(server, make):
    exporter = make(server.url)
    exporter.add(spans(1))
    exporter.flush(5)
    exporter.add(spans(2))
    exporter.reset()
    exporter.add(spans(3))
    assert exporter.flush(5)
    assert names(server) == ["span 0", "span 0", "span 1", "span 2"]
    assert server.connections == 2


def test_what_a_snapshot_was_about_to_send_is_not_sent_after_its_restore(server, make):
    exporter = make(server.url, send_seconds=30)

    def reset_first(sock):
        exporter.reset()
        server.reply = OK
        sock.sendall(OK)

    server.reply = reset_first
    for _ in range(2):
        exporter.add(spans(BATCH_SPANS))
    exporter.flush(10)
    exporter.add(spans(1))
    assert exporter.flush(10)
    assert len(names(server)) == BATCH_SPANS + 1


def test_spans_from_many_threads_all_arrive(server, make):
    exporter = make(server.url)
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(50):
            exporter.add(spans(2))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        exporter.flush(1)
    assert exporter.flush(10)
    assert len(names(server)) == 800
    assert exporter._queue.spans == exporter._queue.bytes == 0


def test_a_forked_child_starts_clean_and_leaves_its_parents_spans_alone(server, make):
    exporter = make(server.url)
    exporter.add(spans(1))
    assert exporter.flush(5)
    exporter.add(spans(2))
    exporter._lock.acquire()  # as if another thread held it at that moment
    child = os.fork()
    if child == 0:
        try:
            exporter.add(spans(5))
            os._exit(0 if exporter.flush(10) else 1)
        finally:
            os._exit(2)
    exporter._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert exporter.flush(5)
    assert len(names(server)) == 1 + 5 + 2
    assert server.connections == 2


def test_an_exporter_that_nothing_refers_to_is_not_kept_for_forks():
    exporter = weakref.ref(Exporter(lambda body, ends: Reply("sent"), {}, Log()))
    gc.collect()
    assert exporter() is None


def test_what_is_left_at_the_end_is_reported_as_dropped_once(make):
    exporter = make(f"http://127.0.0.1:{closed_port()}")
    reported = []
    exporter.report = reported.append
    exporter.add(spans(3))
    exporter.close(5)
    exporter.close(5)
    assert (reported, exporter.take_dropped()) == ([3], 0)


def test_nothing_is_reported_if_all_was_sent(server, make):
    exporter = make(server.url)
    exporter.report = lambda dropped: pytest.fail(f"{dropped} spans")
    exporter.add(spans(3))
    exporter.close(5)
    assert len(names(server)) == 3
