"""A load generator: each user sends the next request after receiving the last answer.

Uses raw asyncio streams with keep-alive: client libraries would cost more per request than the measured server.
Accepts only loopback addresses, and stops on its own.

    python benchmarks/load.py --url http://127.0.0.1:8000 --target '/Answer={"question": "q"}' --users 100
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Load:
    """The answers within the measured time: statuses, and seconds per request."""

    seconds: float
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    def summary(self) -> dict[str, object]:
        """Return requests per second and latencies."""
        ordered = sorted(self.latencies) or [float("nan")]
        return {
            "requests_per_second": round(len(self.latencies) / self.seconds, 2),
            "median_ms": round(statistics.median(ordered) * 1000, 1),
            "p95_ms": round(ordered[int(len(ordered) * 0.95) - 1] * 1000, 1),
            "max_ms": round(ordered[-1] * 1000, 1),
            "statuses": self.statuses,
            "failed": self.failed,
        }


async def user(
    host: str, port: int, requests: list[bytes], number: int, load: Load, starts: float, ends: float
) -> None:
    """Run one user: one connection, and one request after another until the time is over."""
    reader = writer = None
    turn = number
    while time.perf_counter() < ends:
        begin = time.perf_counter()
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection(host, port)
            writer.write(requests[turn % len(requests)])
            turn += 1
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            load.failed += 1
            reader = writer = None
            await asyncio.sleep(0.05)
            continue
        end = time.perf_counter()
        if starts <= end <= ends:
            status = int(head[9:12])
            load.statuses[status] = load.statuses.get(status, 0) + 1
            load.latencies.append(end - begin)
    if writer is not None:
        writer.close()


async def run(url: str, targets: list[tuple[str, str]], users: int, seconds: float, warm_up: float) -> Load:
    """Send for `warm_up` and then `seconds`, counting only the latter; user n starts with target n, n+1, ..."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    if not ipaddress.ip_address(host).is_loopback:
        raise SystemExit("load is sent only to loopback addresses")
    requests = [
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
        for path, body in targets
    ]
    encoded = [request.encode() for request in requests]
    starts = time.perf_counter() + warm_up
    load = Load(seconds)
    await asyncio.gather(*(user(host, port, encoded, n, load, starts, starts + seconds) for n in range(users)))
    return load


def main() -> None:
    """Run and print the summary as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--target", action="append", required=True, metavar="PATH=BODY")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    given = parser.parse_args()
    targets = [(path, body) for path, _, body in (target.partition("=") for target in given.target)]
    load = asyncio.run(run(given.url, targets, given.users, given.seconds, given.warm_up))
    json.dump(load.summary(), sys.stdout)


if __name__ == "__main__":
    main()
