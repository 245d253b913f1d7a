"""A local Lambda's observer is found by the project's folder."""

import contextlib
import http.server
import json
import threading

import pytest

from dspy_lambda_infra import observed


@pytest.fixture(autouse=True)
def _runtime_folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


@contextlib.contextmanager
def answering(told):
    """Serve one JSON document and yield the address."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def files(tmp_path):
    return [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_a_published_address_is_found_until_the_end(tmp_path):
    with answering({"project": str(tmp_path.resolve())}) as address:
        with observed.publish(tmp_path, address):
            assert observed.find(tmp_path) == address
            assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600]
        assert observed.find(tmp_path) is None
    assert files(tmp_path) == []


def test_nothing_is_found_for_another_project(tmp_path):
    with (
        answering({"project": str(tmp_path.resolve())}) as address,
        observed.publish(tmp_path, address),
    ):
        assert observed.find(tmp_path / "other") is None


def test_a_file_left_by_a_killed_local_lambda_is_not_found(tmp_path):
    with answering({}) as address:
        pass
    with observed.publish(tmp_path, address):
        assert observed.find(tmp_path) is None


@pytest.mark.parametrize("told", [{"project": "/another"}, {}, [], "x"])
def test_another_server_on_the_port_is_not_taken_for_the_observer(tmp_path, told):
    with answering(told) as address, observed.publish(tmp_path, address):
        assert observed.find(tmp_path) is None


def test_the_end_of_an_earlier_local_lambda_keeps_the_later_ones_file(tmp_path):
    with answering({"project": str(tmp_path.resolve())}) as address:
        earlier = observed.publish(tmp_path, "http://127.0.0.1:1")
        with earlier:
            later = observed.publish(tmp_path, address)
            later.__enter__()
        assert observed.find(tmp_path) == address
        later.__exit__(None, None, None)


def test_without_a_runtime_folder_the_temporary_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with answering({"project": str(tmp_path.resolve())}) as address, observed.publish(tmp_path, address):
        assert observed.find(tmp_path) == address


def test_a_file_of_another_user_is_not_read(tmp_path, monkeypatch):
    with answering({"project": str(tmp_path.resolve())}) as address, observed.publish(tmp_path, address):
        (file,) = files(tmp_path)
        monkeypatch.setattr("os.getuid", lambda: 12345)
        file.rename(observed._file(tmp_path))
        assert observed.find(tmp_path) is None


def test_the_observer_is_asked_past_a_proxy(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering({"project": str(tmp_path.resolve())}) as address, observed.publish(tmp_path, address):
        assert observed.find(tmp_path) == address
