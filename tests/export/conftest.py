from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lymphcad.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def bundles(trained_run, tmp_path_factory) -> Path:
    """Return the folder of two bundles of the trained run, ``fp32`` and ``int8``; the second has a model card."""
    folder = tmp_path_factory.mktemp("exported")
    card = folder / "card.md"
    card.write_text("# A card\n")
    for precision in ("fp32", "int8"):
        options = ["--name", "made", *(["--card", str(card)] if precision == "int8" else [])]
        with pytest.raises(SystemExit) as ended:
            main(["export", str(trained_run), "--out", str(folder / precision), "--precision", precision, *options])
        assert not ended.value.code
    return folder
