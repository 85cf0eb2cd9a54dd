"""What a bundle, or a run, is worth on a cohort with labels; an external one above all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_train.cohort import read_windows
from lymphcad_train.networks import CamNetwork
from lymphcad_train.record import score
from lymphcad_train.run import RUN, RunRecord, Split, read_record, read_started, write_probabilities
from lymphcad_train.statistics import evaluate
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights
from scipy.special import expit

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.bundle import Bundle, bundle_label, sha256
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_cohort
from lymphcad_export.scores import SERVED, engine_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from lymphcad_train.cohort import Windows

    from lymphcad.bundle import Precision

_AT_ONCE = 256
"""Images whose heatmaps are in memory."""


class Model:
    """What scores: a bundle in the engine that serves it on a CPU, or a run in torch.

    Parameters
    ----------
    path
        The folder of either.
    precision
        Of a bundle's CNN; the one that it prefers if None.

    Attributes
    ----------
    label
        What the result names it by.
    preprocess, threshold, cohort_sha256
        Its own; the digest is that of the cohort it was trained on.

    Raises
    ------
    CommandError
        If it is neither, or damaged, or the bundle lacks the precision.
    """

    def __init__(self, path: Path, precision: Precision | None = None) -> None:
        self._path = path
        self._record: RunRecord | None = None
        if (path / RUN).is_file():
            record = read_record(path)
            self.label = f"run {record.weights_sha256[:12]}"
            self.preprocess, self.threshold = record.preprocess, record.threshold
            training, self._record = record.training, record
        else:
            bundle = Bundle(path)
            self._precision = precision or bundle.manifest.preferred
            bundle.cnn(self._precision)
            self.label = bundle_label(bundle.manifest, bundle.digest)
            self.preprocess, self.threshold = bundle.manifest.preprocess, bundle.manifest.threshold
            training = bundle.manifest.training
        self.cohort_sha256 = training.get("cohort_sha256")

    def probabilities(self, windows: Windows, each: Callable[[int], object]) -> npt.NDArray[np.float64]:
        """Score windows.

        Parameters
        ----------
        windows
            N of them.
        each
            Told how many more are scored.

        Returns
        -------
        array
            float64 [N], calibrated.
        """
        found = []
        network = None
        if self._record is not None:
            network = CamNetwork(self._record.architecture)
            load_weights(network, self._path / WEIGHTS)
        for start in range(0, len(windows), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(windows)))
            if network is not None and self._record is not None:
                margins = score(network, windows, rows, read_started(self._path).settings)[0]
                found.append(expit(margins / self._record.temperature))
            else:
                found.append(engine_scores(self._path, self._precision, SERVED, windows, rows.tolist()).probabilities)
            each(len(rows))
        return np.concatenate(found)


def evaluate_cohort(
    cohort: Path,
    judge: Model,
    out: Path,
    *,
    part: str | None,
    images: Sequence[Path],
    seed: int,
    each: Callable[[int], object],
    begin: Callable[[str, int], object],
    warn: Callable[[str], object],
) -> dict[str, Any]:
    """Score a cohort, write the probabilities beside the result, and return the result.

    Parameters
    ----------
    cohort
        The table.
    judge
        What scores.
    out
        Where the result goes; the probabilities go to the same name with ``.csv``.
    part
        Of the table's own split; all rows if None.
    images
        Folders in which SOP Instance UIDs of the table are looked for.
    seed
        Of the bootstraps.
    each, begin
        For the progress: how many more are done; what begins, and how many there are.
    warn
        Told what a reader must know.

    Returns
    -------
    dict of str to Any
        As `lymphcad_train.statistics.evaluate`, and ``model``, ``cohort_sha256``, ``part``,
        ``warnings`` and ``notice``.

    Raises
    ------
    CommandError
        If the table, an image or the model cannot be used, or there is no such part.
    """
    rows = read_cohort(cohort)
    if part is not None:
        rows = [row for row in rows if row.split == part]
        if not rows:
            raise CommandError(f"the cohort has no rows with split {part}: leave --part out, or fill the column split")
    warnings: list[str] = []
    if judge.cohort_sha256 == sha256(cohort) and part != "test":
        warnings.append(
            "This is the cohort that the model was trained on: figures on its training and validation images are"
            " inflated, and say nothing about new patients."
        )
    begin("Reading images", len(rows))
    windows = read_windows(
        rows,
        ["test"] * len(rows),
        ImageFinder(cohort.parent, images),
        judge.preprocess,
        judge.preprocess.field_of_view_mm,
        lambda: each(1),
        warnings.append,
    )
    begin("Scoring", len(rows))
    probabilities = judge.probabilities(windows, each)
    split = Split.of(rows, ["test"] * len(rows))
    figures = evaluate(split.cases("test", probabilities), judge.threshold, seed)
    own = replace(split, parts=np.array([row.split or "" for row in rows]))
    write_probabilities(out.with_suffix(".csv"), own, probabilities)
    for warning in warnings:
        warn(warning)
    return {
        "model": judge.label,
        "cohort_sha256": sha256(cohort),
        "part": part,
        **figures,
        "warnings": warnings,
        "notice": RESEARCH_USE_ONLY,
    }
