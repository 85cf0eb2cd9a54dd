"""The run's folder: what training leaves in it, and what export reads from it.

- ``settings.json``: what training was told, and the cohort's digest; written first, compared on resume
- ``windows.npz``: the pixels around each node, HU: training, resume and export read no image twice
- ``split.csv``: part, label, patient, lesion and diameter of each image
- ``checkpoints/last.ckpt``, ``log.csv``, ``weights.safetensors``: after each epoch
- ``run.json``: at the end; ``predictions.csv``: when test has been evaluated
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
from lymphcad_train.statistics import Cases

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.tables import CohortRow

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
    data_sha256
        Of ``windows.npz`` and ``split.csv``; empty in the runs of older versions.
    mirrored
        As in `Settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = _FORMAT
    architecture: str
    mirrored: bool = False
    preprocess: Preprocess
    evidence_scale: float
    temperature: float
    threshold: float
    training: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    weights_sha256: str
    data_sha256: dict[str, str] = {}


class Started(BaseModel):
    """The contents of ``settings.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohort_sha256: str
    settings: Settings


def write_text(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)  # noqa: PTH105 - replaces in one step


def write_json(path: Path, value: BaseModel) -> None:
    """Write a model as JSON; the file is there whole or not at all."""
    write_text(path, json.dumps(value.model_dump(), indent=2) + "\n")


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
    """Refuse to go on with a run that is complete, or was started otherwise; arguments as for `check_started`.

    Raises
    ------
    CommandError
        If the run is evaluated on test, never started, or was started with other settings or another cohort.
    """
    if (run / RUN).exists() and "test" in read_record(run).metrics:
        raise CommandError(f"the run in '{run}' is complete: leave out --resume and name a new folder")
    check_started(run, wanted)


def check_started(run: Path, wanted: Started) -> None:
    """Refuse a run under other settings.

    Parameters
    ----------
    run
        The folder.
    wanted
        What is asked for now.

    Raises
    ------
    CommandError
        If the run never started, or was started with other settings or another cohort.
    """
    started = read_started(run)
    if started.cohort_sha256 != wanted.cohort_sha256:
        raise CommandError(f"the cohort has changed since the run in '{run}' was started: start again in a new folder")
    before, now = started.settings.model_dump(), wanted.settings.model_dump()
    different = [name for name in before if before[name] != now[name]]
    if different:
        changes = ", ".join(f"{name} was {before[name]} and is {now[name]}" for name in different)
        raise CommandError(
            f"the run in '{run}' was started with other options ({changes}): give the same ones to resume it"
        )


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
    """The contents of ``split.csv``, in the order of the cohort, N rows.

    Attributes
    ----------
    images, parts, patients, lesions
        str [N]; a lesion is empty where the table names none.
    labels
        int64 [N], 0 or 1.
    diameters_mm
        float64 [N], mm; NaN where the table gives none.
    """

    images: npt.NDArray[np.str_]
    parts: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    lesions: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    diameters_mm: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[CohortRow], parts: Sequence[str]) -> Split:
        """Return the split of a cohort's rows."""
        return cls(
            np.array([row.image for row in rows]),
            np.array(parts),
            np.array([row.patient for row in rows]),
            np.array([row.lesion or "" for row in rows]),
            np.array([row.label for row in rows], np.int64),
            np.array([np.nan if row.diameter_mm is None else row.diameter_mm for row in rows], np.float64),
        )

    def rows(self, part: str) -> npt.NDArray[np.intp]:
        """Return the numbers of a part's rows, intp [M]."""
        return np.flatnonzero(self.parts == part)

    def cases(self, part: str, probabilities: npt.NDArray[np.float64]) -> Cases:
        """Return a part for `lymphcad_train.statistics.evaluate`, with the probabilities of its rows, float64 [M]."""
        return self.cases_of(self.rows(part), probabilities)

    def cases_of(self, rows: npt.NDArray[np.intp], probabilities: npt.NDArray[np.float64]) -> Cases:
        """Return some rows, intp [M], likewise."""
        return Cases(probabilities, self.labels[rows], self.patients[rows], self.diameters_mm[rows], self.lesions[rows])


_SPLIT_COLUMNS = ("image", "split", "patient", "lesion", "label", "diameter_mm")


def write_split(run: Path, split: Split) -> None:
    """Write ``split.csv``."""
    diameters = ("" if np.isnan(value) else value for value in split.diameters_mm)
    columns = (split.images, split.parts, split.patients, split.lesions, split.labels, diameters)
    write_rows(run / SPLIT, _SPLIT_COLUMNS, zip(*columns, strict=True))


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
            columns = list(zip(*([row[name] for name in _SPLIT_COLUMNS] for row in csv.DictReader(file)), strict=True))
        images, parts, patients, lesions = (np.array(column) for column in columns[:4])
        return Split(
            images,
            parts,
            patients,
            lesions,
            np.array(columns[4], np.int64),
            np.array([float(value or "nan") for value in columns[5]]),
        )
    except (OSError, KeyError, ValueError, IndexError):
        raise CommandError(f"{SPLIT} in '{run}' is missing or damaged: train again into a new folder") from None


_PREDICTION_COLUMNS = ("image", "patient", "lesion", "label", "split", "probability")


def write_probabilities(path: Path, split: Split, probabilities: npt.NDArray[np.float64]) -> None:
    """Write the calibrated probability of each image beside what the table says of it.

    Parameters
    ----------
    path
        The CSV file.
    split
        The images, N.
    probabilities
        float64 [N]; NaN, an empty cell, where an image was not scored.
    """
    digits = ("" if np.isnan(probability) else f"{probability:.6f}" for probability in probabilities)
    columns = (split.images, split.patients, split.lesions, split.labels, split.parts, digits)
    write_rows(path, _PREDICTION_COLUMNS, zip(*columns, strict=True))


def read_probabilities(run: Path) -> npt.NDArray[np.float64]:
    """Read ``predictions.csv``.

    Parameters
    ----------
    run
        The folder.

    Returns
    -------
    array
        float64 [N], in the order of the cohort; NaN where an image was not scored.

    Raises
    ------
    CommandError
        If test has not been evaluated, or the file is damaged.
    """
    try:
        with (run / PREDICTIONS).open(newline="", encoding="utf-8") as file:
            return np.array([float(row["probability"] or "nan") for row in csv.DictReader(file)])
    except (OSError, KeyError, ValueError):
        raise CommandError(f"{PREDICTIONS} in '{run}' is missing or damaged: train again into a new folder") from None
