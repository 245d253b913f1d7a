"""The spans of a frozen environment's invocations, with the real runtime client, handler, exporter and extension."""

import asyncio
import json
import statistics
import time
import urllib.request

from tests.conftest import QUICKSTART
from tests.infra.local.support import direct

INVOCATIONS = 1000


async def seconds_of(function):
    begin = time.perf_counter()
    answer = await function.invoke(direct(question="q"))
    assert answer.error is None
    return time.perf_counter() - begin


def request_ids(address):
    """Return the request ids of the invocations at an observer."""
    with urllib.request.urlopen(f"{address}/traces?limit={2 * INVOCATIONS}") as answer:
        spans = json.load(answer)["spans"]
    named = [{one["key"]: one["value"] for one in span["attributes"]} for span in spans]
    return {attributes["faas.invocation_id"]["stringValue"] for attributes in named}


def test_every_invocations_spans_arrive_before_the_freeze(make_local, lines, capsys):
    """Alternates between a function with traces and one without, so that the machine's noise affects both equally."""

    async def run():
        traced, untraced = [], []
        async with make_local(QUICKSTART) as with_traces, make_local(QUICKSTART) as without:
            address = await with_traces.observe()
            functions = with_traces.function("Answer"), without.function("Answer")
            for function in functions:
                await function.invoke(direct(question="q"))
            for _ in range(INVOCATIONS):
                traced.append(await seconds_of(functions[0]))
                untraced.append(await seconds_of(functions[1]))
            await functions[0].finish()
            return traced, untraced, await asyncio.to_thread(request_ids, address)

    traced, untraced, arrived = asyncio.run(run())
    reports = [report["requestId"] for report in lines.reports if report["status"] == "success"]
    assert len(reports) == 2 * (INVOCATIONS + 1)
    assert len(arrived) == INVOCATIONS + 1
    assert arrived <= set(reports)
    with capsys.disabled():
        medians = [statistics.median(found) * 1e3 for found in (traced, untraced)]
        print("\nmedian of {} answers: {:.2f} ms, {:.2f} ms without traces".format(INVOCATIONS, *medians))
