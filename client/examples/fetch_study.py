"""Fetch a study by DICOMweb: python fetch_study.py https://host/dicom-web STUDY_INSTANCE_UID folder."""

from __future__ import annotations

import sys
from pathlib import Path

from lymphcad_client.pacs.address import Speech, WebPeer
from lymphcad_client.pacs.fetching import fetch_web


def main(url: str, study: str, folder: str) -> int:
    """Return 0 if everything came."""
    Path(folder).mkdir(exist_ok=True)
    found = fetch_web(WebPeer(url), study, Path(folder), Speech(), lambda left: print(left, "left"))
    print(found.saved, "saved,", found.missing, "missing,", dict(found.refused), "refused")
    return 0 if found.is_whole else 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
