"""The most recent items, bounded by number and size."""

import asyncio

import pytest

from dspy_lambda_infra.local.recent import Recent


@pytest.mark.parametrize(
    ("most", "max_bytes", "left"), [(3, 100, [7, 8, 9]), (100, 4, [8, 9]), (100, 1, [9])], ids=["number", "size", "one"]
)
def test_the_oldest_items_are_dropped(most, max_bytes, left):
    recent = Recent(most, max_bytes)
    for number in range(10):
        recent.add(number, 2)
    assert (list(recent), list(reversed(recent))) == (left, left[::-1])


def test_a_follower_gets_each_item_once():
    async def run():
        recent = Recent(4, 100)
        recent.add(0, 1)
        seen = []
        follower = recent.follow()
        seen.append(await anext(follower))
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        recent.add(1, 1)
        recent.add(2, 1)
        seen += [await waiting, await anext(follower)]
        recent.add(3, 1)
        seen.append(await anext(follower))
        return seen

    assert asyncio.run(run()) == [0, 1, 2, 3]


def test_a_slow_follower_misses_what_was_dropped_meanwhile():
    async def run():
        recent = Recent(2, 100)
        recent.add(0, 1)
        follower = recent.follow()
        first = await anext(follower)
        for number in range(1, 6):
            recent.add(number, 1)
        return [first, await anext(follower), await anext(follower)]

    assert asyncio.run(run()) == [0, 4, 5]
