from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lymphcad.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def exported(trained_run, tmp_path_factory) -> Path:
    """Return a bundle of the trained run in all precisions, with a model card."""
    folder = tmp_path_factory.mktemp("exported")
    card = folder / "card.md"
    card.write_text("# A card\n")
    options = ["--precision", "fp32,fp16,int8", "--name", "made", "--card", str(card)]
    with pytest.raises(SystemExit) as ended:
        main(["export", str(trained_run), "--out", str(folder / "bundle"), *options])
    assert not ended.value.code
    return folder / "bundle"
