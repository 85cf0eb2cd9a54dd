"""Score a table of nodes from asyncio, beside other work: python score_async.py nodes.csv grpc://host:8001."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from lymphcad_client.async_batch import score_many_async
from lymphcad_client.triton import TritonScorer

from lymphcad.tables import read_nodes


async def score(table: Path, address: str) -> None:
    """Print each result as it comes."""
    with TritonScorer(address) as scorer:
        async for result in score_many_async(read_nodes(table), scorer, base=table.parent):
            probability = "" if result.finding is None else f" {result.finding.probability:.3f}"
            print(f"{result.node.node}: {result.status}{probability} {result.reason}")


async def main(table: str, address: str) -> None:
    """Score while something else is done, here counting."""
    scoring = asyncio.create_task(score(Path(table), address))
    waited = 0
    while not scoring.done():
        await asyncio.sleep(0.01)
        waited += 1
    await scoring
    print(f"the event loop did {waited} other things meanwhile")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
