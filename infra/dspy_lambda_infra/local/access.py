"""Decides which requests the local servers refuse: those that a web page could send.

Nothing here requires a signature, so a page in the developer's browser could use the developer's model keys. Browsers
mark such requests: they name the page in Origin for every method except GET and HEAD, whatever the content type. A page
that made its own name resolve to this machine (DNS rebinding) has that name in Host.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

_NAMES = ("localhost", "127.0.0.1", "[::1]")
_READING = ("GET", "HEAD", "OPTIONS")

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def refuse_host(hosts: Sequence[str], port: int) -> str | None:
    """Return the reason to refuse a request with these Host headers, or None."""
    if len(hosts) == 1 and hosts[0].lower() in _own_hosts(port):
        return None
    return (
        f"Host {', '.join(hosts)!r} is not this server, so a web page could have sent this request: "
        f"call http://127.0.0.1:{port} or http://localhost:{port}."
    )


def refuse_origin(method: str, origins: Sequence[str], port: int, allowed: Sequence[str]) -> str | None:
    """Return the reason to refuse a request with these Origin headers, or None. CORS governs reading.

    Args:
        allowed: the config's `server.cors_origins`. Here "*" means pages of this machine only: on AWS other pages
            would need a signature or a token, but here they would need nothing.
    """
    own = {f"http://{host}" for host in _own_hosts(port)}
    for origin in origins:
        known = origin in own or origin in allowed or ("*" in allowed and _is_local(origin))
        if not known and method not in _READING:
            return f"Pages from {origin!r} may not call this server: add it to server.cors_origins in dspy.config.yaml."
    return None


def refuse_browser(headers: Iterable[str]) -> str | None:
    """Return the reason why a server that no page needs refuses a request with these header names, or None.

    A page can send GET without an Origin, and would consume what GET hands out only once, even though it cannot read
    it. Browsers mark these requests too: https://www.w3.org/TR/fetch-metadata/
    """
    if {"origin", "sec-fetch-site"}.isdisjoint(name.lower() for name in headers):
        return None
    return "Web pages may not call this server."


def refuse_pages(app: Wsgi) -> Wsgi:
    """Wrap a WSGI application for AWS clients, which sign their requests.

    A page can send GET without an Origin (as an image URL), and SQS accepts messages that way; but a page cannot send
    an Authorization header without a preflight. The server's own CORS headers (moto allows everything) are removed.
    """

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = [environ["HTTP_HOST"]] if "HTTP_HOST" in environ else []
        reason = refuse_host(host, int(environ["SERVER_PORT"]))
        if "HTTP_ORIGIN" in environ or "HTTP_AUTHORIZATION" not in environ:
            reason = "Web pages may not call this server: send signed requests, as the AWS CLI and SDKs do."
        if reason is None:
            return app(environ, _without_cors(start_response))
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"message": reason}).encode()]

    return answer


def _without_cors(start_response: Any) -> Any:
    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        return start_response(status, kept, *more)

    return start


def is_loopback(host: str) -> bool:
    """Whether a server on that host accepts calls from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _own_hosts(port: int) -> set[str]:
    return {f"{name}:{port}" for name in _NAMES} | (set(_NAMES) if port == 80 else set())


def _is_local(origin: str) -> bool:
    try:
        return urlsplit(origin).hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False
