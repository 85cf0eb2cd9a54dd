"""The model card that travels in a bundle: the one that a comparison wrote, or the least, and the proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad import RESEARCH_USE_ONLY
from lymphcad_export.proof import PARITY_JSON

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_train.run import RunRecord

    from lymphcad_export.proof import Prover

CARD = "model_card.md"


def card_text(given: Path | None, record: RunRecord, prover: Prover, command: str) -> str:
    """Return the card.

    Parameters
    ----------
    given
        Markdown of `lymphcad compare`; the least is written without.
    record
        Of the run.
    prover
        What it found.
    command
        That repeats the proofs.

    Returns
    -------
    str
        Markdown.
    """
    text = _least(record) if given is None else given.read_text(encoding="utf-8")
    return (
        f"{text.rstrip()}\n\n## The exported graphs against the trained network\n\n"
        f"On the {len(prover.rows)} validation and test crops, against torch in float32; the limits and all figures"
        f" are in `{PARITY_JSON}`. Repeated by\n\n    {command}\n\n{prover.table()}\n"
    )


def _least(record: RunRecord) -> str:
    crop = record.preprocess
    return (
        f"# {record.architecture}\n\n**{RESEARCH_USE_ONLY}.**\n\n"
        f"Trained by `{record.training['command']}` on {record.training['n']} images of"
        f" {record.training['patients']} patients. A field of view of {crop.field_of_view_mm:g} mm, {crop.size} pixels;"
        f" window level {crop.window_level_hu:g} HU, width {crop.window_width_hu:g} HU. A probability of"
        f" {record.threshold:.3f} or more is called metastatic (chosen on validation). How well it does stands in"
        " `bundle.json` under `metrics`; what it must not be used for, nobody has written here: `lymphcad compare`"
        " writes a whole card, and `lymphcad export --card` takes it.\n"
    )
