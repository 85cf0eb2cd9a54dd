"""Score a table on several Triton servers: python score_on_several_servers.py nodes.csv grpc://a:8001 grpc://b:8001.

A server that dies gets no more nodes until it answers again; its nodes go to the others.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from lymphcad_client.batch import score_many
from lymphcad_client.servers import Servers

from lymphcad.errors import LymphcadError
from lymphcad.tables import read_nodes


def main(table: str, *addresses: str) -> None:
    """Print each node's probability, and how many were scored, refused and failed."""
    with Servers(addresses, patience_s=60) as servers:
        print(servers.about)
        counts: Counter[str] = Counter()
        for result in score_many(read_nodes(Path(table)), servers, base=Path(table).parent):
            counts[result.status] += 1
            if result.finding is not None:
                print(result.node.node, f"{result.finding.probability:.3f}")
    print(dict(counts))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LymphcadError as error:
        sys.exit(str(error))
