"""What a comparison has found, as its report takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.bundle import sha256
from lymphcad.tables import read_cohort
from lymphcad_train.networks import CamNetwork
from lymphcad_train.run import read_probabilities, read_split
from lymphcad_train.split import HELD_OUT
from lymphcad_train.statistics import compare_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lymphcad_train.run import RunRecord
    from lymphcad_train.settings import Settings

RUNS = "runs"
"""The folder of the runs in that of the comparison."""
PHANTOM = "phantom.json"
"""What ``lymphcad phantom`` has written beside its table."""


@dataclass(frozen=True)
class Told:
    """What the user says of a comparison.

    Attributes
    ----------
    command
        What is recorded as the command.
    of
        What the cohort is of, such as cervical lymph nodes.
    notes
        What a reader must know of the cohort.
    """

    command: str
    of: str
    notes: Sequence[str]


def contents_of(
    cohort: Path,
    out: Path,
    settings: dict[str, Settings],
    records: dict[str, RunRecord],
    failed: dict[str, str],
    selection: dict[str, Any],
    told: Told,
) -> dict[str, Any]:
    """Return the contents of the report.

    Parameters
    ----------
    cohort, out
        The table, and the comparison's folder.
    settings, records, failed
        Of all networks; the runs of those that were trained, evaluated on test; why the others were not.
    selection
        The contents of ``selection.json``.
    told
        By the user.

    Returns
    -------
    dict of str to Any
        As `lymphcad_train.report.write_report` takes it.
    """
    best = selection["architecture"]
    record, chosen = records[best], settings[best]
    split = read_split(out / RUNS / best)
    test = split.rows("test")
    scores = {name: read_probabilities(out / RUNS / name)[test] for name in records}
    labels = split.labels[test]
    testable = len(scores) > 1 and np.bincount(labels, minlength=2).min() > 1
    own_split = read_cohort(cohort)[0].split is not None
    threshold = (
        "Youden's index, smoothed"
        if chosen.sensitivity is None
        else f"the highest threshold with a sensitivity of {chosen.sensitivity:g}"
    )
    return {
        "notice": RESEARCH_USE_ONLY,
        "made": now(),
        "command": told.command,
        "commands": [told.command, *(records[name].training["command"] for name in records)],
        "versions": record.versions,
        "cohort": {
            "name": cohort.stem if cohort.stem != "cohort" else cohort.resolve().parent.name,
            "of": told.of,
            "sha256": sha256(cohort),
            "n": record.training["n"],
            "patients": record.training["patients"],
            "split": "As the table gives it." if own_split else _drawn(chosen),
            "split_by": "table" if own_split else chosen.split_by,
            "images_per_part": record.training["images_per_part"],
            "patients_per_part": record.training["patients_per_part"],
            "ceiling": _ceiling(cohort),
        },
        "preprocess": record.preprocess.model_dump(),
        "focus": chosen.focus,
        "networks": [
            {
                "architecture": name,
                "weights": one.weights,
                "parameters": sum(tensor.numel() for tensor in CamNetwork(name).parameters()),
                "failed": failed.get(name),
                **(_network(records[name]) if name in records else {}),
            }
            for name, one in settings.items()
        ],
        "selected": best,
        "chosen": [
            {
                "what": "epoch, temperature and threshold of each network",
                "on": "validation",
                "when": selection["when"],
                "how": f"highest AUROC, most likely labels, {threshold}",
            },
            {"what": "network", "on": "validation", "when": selection["when"], "how": "highest AUROC"},
        ],
        "pairwise": [
            {
                "a": pair.first,
                "b": pair.second,
                "auroc_difference": pair.difference,
                "auroc_difference_ci95": pair.interval,
                "p": pair.p,
                "p_holm": pair.p_holm,
            }
            for pair in (compare_pairs(scores, labels, split.patients[test], chosen.seed) if testable else [])
        ],
        "warnings": list(told.notes),
    }


def _network(record: RunRecord) -> dict[str, Any]:
    names = ("epochs_run", "best_epoch", "minutes")
    return {
        **{name: record.training[name] for name in names},
        "temperature": record.temperature,
        "threshold": record.threshold,
        "validation": record.metrics["validation"],
        "test": record.metrics["test"],
    }


def _ceiling(cohort: Path) -> dict[str, float] | None:
    """Return what ``lymphcad phantom`` has written beside its table: the ceilings for nodes without end."""
    path = cohort.parent / PHANTOM
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return {name: float(known[name]) for name in ("bayes_auroc", "size_auroc")}


def _drawn(settings: Settings) -> str:
    shares = f"{100 - 200 * HELD_OUT:g} / {100 * HELD_OUT:g} / {100 * HELD_OUT:g}"
    return (
        f"By {settings.split_by}, drawn {shares} in two strata, metastatic and other ones, from seed {settings.seed}."
    )


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
