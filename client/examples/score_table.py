"""Score a table of nodes in this process: python score_table.py nodes.csv bundle.

Images are read in two processes beside it, which is why the work is begun below `if __name__ == "__main__":`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lymphcad_client.batch import score_many
from lymphcad_client.edge.scorer import EdgeScorer

from lymphcad.bundle import Bundle
from lymphcad.tables import read_nodes


def main(table: str, bundle: str) -> int:
    """Return how many nodes were not scored."""
    left = 0
    with EdgeScorer(Bundle(Path(bundle))) as scorer:
        for result in score_many(read_nodes(Path(table)), scorer, base=Path(table).parent, jobs=2):
            if result.finding is None:
                left += 1
                print(f"{result.node.node}: {result.status}, {result.reason}")
            else:
                print(f"{result.node.node}: {result.finding.probability:.3f}, {result.finding.call}")
    return left


if __name__ == "__main__":
    sys.exit(3 if main(*sys.argv[1:]) else 0)
