"""The run's folder: what training leaves in it, and what export reads from it.

- ``settings.json``: what training was told, and the cohort's digest; written first, compared on resume
- ``windows.npz``: the pixels around each node, HU: training, resume and export read no image twice
- ``split.csv``: the part of each image
- ``checkpoints/last.ckpt``, ``log.csv``, ``weights.safetensors``: after each epoch
- ``predictions.csv``, ``run.json``: at the end
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lymphcad.bundle import Preprocess
from lymphcad.errors import CommandError
from lymphcad_train.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

SETTINGS, WINDOWS, SPLIT, PREDICTIONS, RUN = (
    "settings.json",
    "windows.npz",
    "split.csv",
    "predictions.csv",
    "run.json",
)
LAST = "checkpoints/last.ckpt"
_FORMAT: Final = 1


class RunRecord(BaseModel):
    """The contents of ``run.json``: the fields of `lymphcad.bundle.Manifest` that training decides.

    Attributes
    ----------
    weights_sha256
        Of ``weights.safetensors``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = _FORMAT
    architecture: str
    preprocess: Preprocess
    evidence_scale: float
    temperature: float
    threshold: float
    training: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    weights_sha256: str


class Started(BaseModel):
    """The contents of ``settings.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohort_sha256: str
    settings: Settings


def write_json(path: Path, value: BaseModel) -> None:
    """Write a model as JSON; the file is there whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value.model_dump(), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)  # noqa: PTH105 - replaces in one step


def read_record(run: Path) -> RunRecord:
    """Read the ``run.json`` of a complete run.

    Parameters
    ----------
    run
        The folder.

    Returns
    -------
    RunRecord
        Valid.

    Raises
    ------
    CommandError
        If the run is not complete, or the file damaged.
    """
    try:
        return RunRecord.model_validate_json((run / RUN).read_bytes())
    except OSError:
        raise CommandError(
            f"there is no {RUN} in '{run}', so this is no complete run: finish it with `lymphcad train --resume`"
        ) from None
    except ValidationError:
        raise CommandError(f"{RUN} in '{run}' is damaged or of another version: train again") from None


def read_started(run: Path) -> Started:
    """Read the ``settings.json`` of a run.

    Parameters
    ----------
    run
        The folder.

    Returns
    -------
    Started
        Valid.

    Raises
    ------
    CommandError
        If the run never started, or the file is damaged.
    """
    try:
        return Started.model_validate_json((run / SETTINGS).read_bytes())
    except OSError:
        raise CommandError(
            f"there is no {SETTINGS} in '{run}', so there is nothing to resume: start without --resume in a new folder"
        ) from None
    except ValidationError:
        raise CommandError(f"{SETTINGS} in '{run}' is damaged or of another version: train again") from None


def check_resumable(run: Path, wanted: Started) -> None:
    """Refuse to go on with a run under other settings.

    Parameters
    ----------
    run
        The folder.
    wanted
        What is asked for now.

    Raises
    ------
    CommandError
        If the run is complete, never started, or was started with other settings or another cohort.
    """
    started = read_started(run)
    if (run / RUN).exists():
        raise CommandError(f"the run in '{run}' is complete: leave out --resume and name a new folder")
    if started.cohort_sha256 != wanted.cohort_sha256:
        raise CommandError("the cohort has changed since the run was started: start again in a new folder")
    before, now = started.settings.model_dump(), wanted.settings.model_dump()
    different = [name for name in before if before[name] != now[name]]
    if different:
        changes = ", ".join(f"{name} was {before[name]} and is {now[name]}" for name in different)
        raise CommandError(f"the run was started with other options ({changes}): give the same ones to resume it")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; it is there whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(part, path)  # noqa: PTH105 - replaces in one step


@dataclass(frozen=True)
class Split:
    """The contents of ``split.csv``: for each row of the cohort part, label (0 or 1) and patient, [N] each."""

    parts: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]


def read_split(run: Path) -> Split:
    """Read ``split.csv``.

    Parameters
    ----------
    run
        The folder.

    Returns
    -------
    Split
        In the order of the cohort.

    Raises
    ------
    CommandError
        If the file is missing or damaged.
    """
    try:
        with (run / SPLIT).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return Split(
            np.array([row["split"] for row in rows]),
            np.array([int(row["label"]) for row in rows]),
            np.array([row["patient"] for row in rows]),
        )
    except (OSError, KeyError, ValueError):
        raise CommandError(f"{SPLIT} in '{run}' is missing or damaged: train again into a new folder") from None
