import os
import threading
import time

import pytest

from dspy_lambda.telemetry.output import Output


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_lines_of_many_threads_stay_whole_with_a_slow_reader(pipe):
    reading, writing = pipe
    output = Output(writing)
    texts = [letter * 100_000 for letter in "abcdefgh"]
    threads = [threading.Thread(target=output.write, args=(text + "\n",)) for text in texts]
    for thread in threads:
        thread.start()
    read = b""
    while read.count(b"\n") < len(texts):
        time.sleep(0.02)  # each line takes longer than the lock's timeout
        read += os.read(reading, 16_384)
    for thread in threads:
        thread.join()
    assert sorted(read.decode().split()) == texts


def test_a_lock_that_is_never_released_does_not_stop_logging(pipe):
    reading, writing = pipe
    output, held, release = Output(writing), threading.Event(), threading.Event()

    def hold():
        with output._lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    for line in ("one\n", "two\n"):
        output.write(line)
    release.set()
    thread.join()
    output.write("three\n")
    assert os.read(reading, 100) == b"one\ntwo\nthree\n"
