from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest
from lymphcad_client.async_batch import score_many_async
from watching import CT, Answers

from lymphcad.errors import CommandError
from lymphcad.tables import NodeRow


def nodes(count=60):
    return [NodeRow(line, CT, float(line % 60), 5.0, str(line)) for line in range(1, count + 1)]


def test_results_come_in_order_one_a_node():
    async def collect():
        return [(result.node.line, result.status) async for result in score_many_async(nodes(), Answers())]

    states = {7: "refused", 8: "failed"}
    assert asyncio.run(collect()) == [(line, states.get(line, "scored")) for line in range(1, 61)]


def test_the_event_loop_goes_on_while_a_node_is_scored():
    """The scorer waits for what only the event loop can do."""
    done = threading.Event()

    def meanwhile():
        assert done.wait(30)

    async def score():
        asyncio.get_running_loop().call_later(0.1, done.set)
        return [result.status async for result in score_many_async(nodes(3), Answers(meanwhile))]

    assert asyncio.run(score()) == ["scored"] * 3


@pytest.mark.parametrize("how", ["cancelled", "twice", "closed", "left"])
def test_stopped_early(how):
    """What is being scored is finished, nothing else is begun, and the generator is closed in its own thread."""
    begun, go_on = threading.Event(), threading.Event()
    given, closed = [], []
    first = how in ("closed", "left")

    def meanwhile():
        if len(scorer.nodes) > 5 and not first:
            begun.set()
            assert go_on.wait(30)

    def rows():
        try:
            for node in nodes():
                given.append(threading.current_thread())
                yield node
        finally:
            closed.append(threading.current_thread())

    async def collect():
        async with aclosing(score_many_async(rows(), scorer)) as results:
            async for _ in results:
                if how == "closed":
                    return

    async def stop():
        if how == "left":
            async for _ in score_many_async(rows(), scorer):
                break
        elif how == "closed":
            await collect()
        else:
            task = asyncio.create_task(collect())
            await asyncio.to_thread(begun.wait, 30)
            task.cancel()
            await asyncio.sleep(0.05)
            if how == "twice":
                task.cancel()
                await asyncio.sleep(0.05)
            else:
                assert not task.done()  # it waits for what is in flight
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    scorer = Answers(meanwhile)
    asyncio.run(stop())
    for thread in set(given):
        thread.join(30)  # of the pool; it ends once the generator is closed
        assert not thread.is_alive()
    assert set(given) == set(closed)
    assert len(closed) == 1
    assert given[0] is not threading.current_thread()
    assert 0 < len(scorer.nodes) <= len(given) < 20


def test_what_is_raised_reaches_the_caller(tmp_path):
    async def score():
        return [result async for result in score_many_async(nodes(), Answers(), sources=[tmp_path / "none"])]

    with pytest.raises(CommandError, match="does not exist"):
        asyncio.run(score())
