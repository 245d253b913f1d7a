"""Sends answers' bytes: at once, slowly, cut off, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from dspy_lambda_infra.model_server.behavior import Behavior


async def send(
    request: web.Request, data: bytes, headers: dict[str, str], behavior: Behavior, *, cut: bool = False
) -> web.StreamResponse:
    """Send an answer as slowly as the behavior says.

    Args:
        cut: whether to close the connection after half of the body.

    Raises:
        ConnectionError: it could not be sent completely.
    """
    response = web.StreamResponse(headers=headers)
    response.content_length = len(data)
    if behavior.slow_headers_seconds:
        await _send_slow_headers(request, data, headers["Content-Type"], behavior.slow_headers_seconds)
        return response
    await response.prepare(request)
    if cut:
        await response.write(data[: len(data) // 2])
        close(request)
        raise ConnectionResetError
    if not behavior.trickle_seconds:
        await response.write(data)
    else:
        for byte in data:
            await asyncio.sleep(behavior.trickle_seconds)
            await response.write(bytes([byte]))
    await response.write_eof()
    return response


async def _send_slow_headers(request: web.Request, data: bytes, content_type: str, pause_seconds: float) -> None:
    """Bypass aiohttp, which sends the headers in one piece; then close the connection."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    for byte in head:
        if request.transport is None:
            raise ConnectionResetError
        request.transport.write(bytes([byte]))
        await asyncio.sleep(pause_seconds)
    if request.transport is None:
        raise ConnectionResetError
    request.transport.write(data)
    request.transport.close()


def close(request: web.Request) -> None:
    """Close a request's connection."""
    if request.transport is not None:
        request.transport.close()


def reset(request: web.Request) -> None:
    """Close a request's connection with RST instead of FIN."""
    if request.transport is not None:
        # Without lingering, a close sends RST: socket(7), SO_LINGER.
        linger = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
