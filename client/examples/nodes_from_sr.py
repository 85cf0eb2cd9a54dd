"""Find the nodes that a radiologist marked in a viewer, and write them as a table for `lymphcad score --nodes`.

Run: python nodes_from_sr.py STUDY_FOLDER nodes.csv

The folder holds the CT images and what the viewer stored about them: a structured report or a presentation state.
"""

import sys
from pathlib import Path

from lymphcad_client.annotations.find import find_nodes
from lymphcad_client.annotations.table import write_nodes

from lymphcad.errors import LymphcadError

study, table = map(Path, sys.argv[1:3])
try:
    found = find_nodes([study])
    for node in found.nodes:
        at = node.row
        frame = "" if at.frame is None else f", frame {at.frame}"
        print(f"{at.node}: row {at.row:.1f}, column {at.col:.1f}{frame} ({node.source})")
    for where, refusal in found.refused:
        print(f"{where}: {refusal}", file=sys.stderr)
    write_nodes(table, found.nodes)
except LymphcadError as error:
    sys.exit(f"{error}")
