"""The connection against servers that answer well, badly, slowly, or not at all."""

import datetime
import ipaddress
import socket
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dspy_lambda.telemetry.export.connection import Answer, BadAnswer, ConnectFailed, Connection
from tests.handler.telemetry.export.collector_server import OK, CollectorServer, answer, closed_port


def post(connection, seconds=5.0, body=b"{}"):
    return connection.request("POST", "/v1/traces", [("x-key", "v")], body, time.monotonic() + seconds)


@pytest.fixture
def connection(server):
    found = Connection("127.0.0.1", server.port)
    yield found
    found.close()


def test_a_request_as_the_server_reads_it(server, connection):
    assert post(connection, body=b"abc") == Answer(
        200, {"content-type": "application/json", "content-length": "2"}, b"{}"
    )
    (request,) = server.received
    assert (request.line, request.raw) == ("POST /v1/traces HTTP/1.1", b"abc")
    assert request.headers == {"host": f"127.0.0.1:{server.port}", "content-length": "3", "x-key": "v"}


def test_requests_share_one_connection(server, connection):
    for _ in range(3):
        post(connection)
    assert (len(server.received), server.connections) == (3, 1)


def test_a_large_body_arrives_whole(server, connection):
    body = bytes(range(256)) * 20_000
    post(connection, body=body)
    assert server.received[0].raw == body


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: v\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["chunked", "no content", "continue", "no reason"],
)
def test_forms_of_answers_after_which_the_connection_is_used_again(server, connection, reply, body):
    server.reply = reply
    assert post(connection).body == body
    post(connection)
    assert server.connections == 1


def test_a_body_without_a_length_ends_with_the_connection(server, connection):
    server.reply = lambda sock: sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nabc")
    assert post(connection).body == b"abc"
    server.reply = OK
    assert post(connection).status == 200


def test_a_connection_that_the_server_asks_to_close_is_not_used_again(server, connection):
    server.reply = answer(200, connection="Close")
    post(connection)
    post(connection)
    assert server.connections == 2


def test_a_connection_that_the_server_has_closed_is_opened_again(server, connection):
    post(connection)
    server.drop_connections()
    assert post(connection).status == 200
    assert (len(server.received), server.connections) == (2, 2)


def test_an_answer_that_breaks_off_is_not_asked_for_again(server, connection):
    post(connection)
    server.reply = lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    with pytest.raises(BadAnswer):
        post(connection)
    assert len(server.received) == 2


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(server):
    connection = Connection("127.0.0.1", server.port, idle_seconds=-1)
    post(connection)
    post(connection)
    assert server.connections == 2
    connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\0\xff" * 50_000,
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
        OK + OK,
    ],
)
def test_what_is_not_an_answer(server, connection, reply):
    server.reply = reply
    with pytest.raises(BadAnswer) as raised:
        post(connection)
    assert "SSH" not in str(raised.value)
    server.reply = OK
    assert post(connection).status == 200


def test_an_answer_that_ends_early(server, connection):
    server.reply = lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    with pytest.raises(BadAnswer):
        post(connection)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "headers", "body", "chunks", "no length", "only continue"],
)
def test_an_answer_that_never_ends_is_given_up_in_time(server, connection, head, piece):
    server.reply = server.trickle(head, piece)
    with pytest.raises(TimeoutError):
        post(connection, seconds=0.5)
    server.reply = OK
    assert post(connection).status == 200


def test_headers_that_never_end(server, connection):
    server.reply = server.trickle(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000)
    with pytest.raises(BadAnswer):
        post(connection)


def test_a_server_that_reads_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(TimeoutError):
            post(connection, seconds=1, body=b"x" * 20_000_000)


def test_nothing_was_sent_where_nothing_listens():
    with pytest.raises(ConnectFailed):
        post(Connection("127.0.0.1", closed_port()))
    with pytest.raises(ConnectFailed):
        post(Connection("no-such-host.invalid", 80))


def test_a_server_without_tls(server):
    with pytest.raises(ConnectFailed):
        post(Connection("127.0.0.1", server.port, tls=True), seconds=0.5)


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """Return a file with a key and a certificate for 127.0.0.1, which this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    found = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = tmp_path / "collector.pem"
    path.write_bytes(key.private_bytes(encoding, *plain) + found.public_bytes(encoding))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def tls_server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    found = CollectorServer(tls=context)
    yield found
    found.close()


def test_requests_over_tls_share_one_connection(tls_server):
    connection = Connection("127.0.0.1", tls_server.port, tls=True)
    for _ in range(2):
        assert post(connection, body=b"x" * 200_000).status == 200
    assert (len(tls_server.received), tls_server.connections) == (2, 1)
    tls_server.drop_connections()
    assert post(connection).status == 200
    assert tls_server.connections == 2
    connection.close()


def test_an_answer_over_tls_that_never_ends_is_given_up_in_time(tls_server):
    tls_server.reply = tls_server.trickle(b"HTTP/1.1 200 OK\r\n", b"x")
    with pytest.raises(TimeoutError):
        post(Connection("127.0.0.1", tls_server.port, tls=True), seconds=0.3)


def test_a_certificate_that_is_not_trusted_gets_nothing(tls_server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConnectFailed, match="SSLCertVerificationError"):
        post(Connection("127.0.0.1", tls_server.port, tls=True))
    assert tls_server.received == []


def test_a_certificate_of_another_host_gets_nothing(tls_server):
    with pytest.raises(ConnectFailed, match="SSLCertVerificationError"):
        post(Connection("localhost", tls_server.port, tls=True))
    assert tls_server.received == []


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2000 + b"\r\n",
    ],
    ids=["interim answers", "trailers"],
)
def test_a_flood_of_small_parts_is_given_up_at_once(server, connection, reply):
    server.reply = reply
    with pytest.raises(BadAnswer, match="too many"):
        post(connection)
