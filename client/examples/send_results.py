"""Store the DICOM results of a run at a PACS: python send_results.py results dicom://AET@host:104."""

from __future__ import annotations

import sys
from pathlib import Path

from lymphcad_client.pacs.address import Speech, parse_peer
from lymphcad_client.pacs.part10 import list_dicom
from lymphcad_client.pacs.sending import send_files


def main(results: str, address: str) -> int:
    """Return 0 if every object is stored."""
    paths, _ = list_dicom([Path(results)])
    not_stored = 0
    for sent in send_files(paths, parse_peer(address), Speech(calling_aet="LYMPHCAD")):
        print(sent.outcome, sent.status, sent.path.name)
        not_stored += sent.outcome in ("refused", "failed")
    return not_stored


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
