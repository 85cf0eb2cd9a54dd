"""What a trained network's scores mean: temperature and threshold from validation, the evidence scale, the figures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit
from torch.utils.data import DataLoader

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad_train import augment
from lymphcad_train import settings as constants
from lymphcad_train.cohort import load_windows
from lymphcad_train.data import Samples, collate
from lymphcad_train.graphs import Cam, Preprocess
from lymphcad_train.networks import CamNetwork, as_served
from lymphcad_train.run import (
    PREDICTIONS,
    RUN,
    SPLIT,
    WINDOWS,
    RunRecord,
    read_record,
    read_split,
    read_started,
    write_json,
    write_probabilities,
)
from lymphcad_train.split import PARTS
from lymphcad_train.statistics import evaluate, fit_temperature, sensitivity_threshold, youden_threshold
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad_train.cohort import Windows
    from lymphcad_train.run import Split
    from lymphcad_train.settings import Settings

EVIDENCE_PERCENTILE = 99.0
_CLASSES = ("benign", "metastatic")


@dataclass(frozen=True)
class Made:
    """A trained network's meaning.

    Attributes
    ----------
    temperature, threshold, evidence_scale, metrics
        As in `RunRecord`; metrics of validation only.
    composition
        Of the cohort.
    """

    settings: Settings
    temperature: float
    threshold: float
    evidence_scale: float
    composition: dict[str, Any]
    metrics: dict[str, Any]

    def record(
        self,
        cohort_sha256: str,
        command: str,
        progress: dict[str, Any],
        versions: dict[str, str],
        run: Path,
    ) -> RunRecord:
        """Return it as it stands in ``run.json``."""
        chosen = self.settings
        training = {
            "cohort_sha256": cohort_sha256,
            **self.composition,
            "command": command,
            **chosen.model_dump(exclude={"preprocess", "architecture"}),
            **progress,
            "crop_sizes": sorted({chosen.size_of(epoch) for epoch in range(chosen.epochs)}),
            "regularisation": {
                "weight_decay": constants.WEIGHT_DECAY,
                "label_smoothing": constants.LABEL_SMOOTHING,
                "drop_path": constants.DROP_PATH,
                "ema_decay": constants.EMA_DECAY,
            },
            "augmentation": {
                "shift_mm": augment.SHIFT_MM,
                "scale": augment.SCALE,
                "rotation_deg": augment.ROTATION_DEG,
                "quarter_turns_and_mirroring": True,
                "contrast_gain": augment.GAIN,
                "offset_hu": augment.OFFSET_HU,
                "noise_hu": augment.NOISE_HU,
            },
            "chosen_on_validation": ["epoch", "temperature", "threshold"],
        }
        return RunRecord(
            architecture=chosen.architecture,
            mirrored=chosen.mirrored,
            preprocess=chosen.preprocess,
            evidence_scale=self.evidence_scale,
            temperature=self.temperature,
            threshold=self.threshold,
            training=training,
            metrics=self.metrics,
            versions=versions,
            weights_sha256=sha256(run / WEIGHTS),
            data_sha256={name: sha256(run / name) for name in (WINDOWS, SPLIT)},
        )


def make_record(network: CamNetwork, windows: Windows, split: Split, settings: Settings) -> Made:
    """Score training and validation in float32, as served, and find what gives the scores their meaning.

    Parameters
    ----------
    network
        Trained.
    windows, split
        The cohort. Its test part is not looked at.
    settings
        Of the run.

    Returns
    -------
    Made
        Temperature and threshold see validation only.
    """
    metastatic = split.rows("train")[split.labels[split.rows("train")] == 1]
    maps = score(network, windows, metastatic, settings)[1]
    margins, labels = score(network, windows, split.rows("val"), settings)[0], split.labels[split.rows("val")]
    temperature = fit_temperature(margins, labels)
    margins = margins / temperature
    wanted = settings.sensitivity
    cut = youden_threshold(margins, labels) if wanted is None else sensitivity_threshold(margins, labels, wanted)
    threshold = float(expit(cut))
    validation = evaluate(split.cases("val", expit(margins)), threshold, settings.seed)
    composition = {
        "n": len(split.parts),
        "patients": len(np.unique(split.patients)),
        "patients_per_part": {part: len(np.unique(split.patients[split.rows(part)])) for part in PARTS},
        "images_per_part": {
            part: {name: int(np.sum(split.labels[split.rows(part)] == label)) for label, name in enumerate(_CLASSES)}
            for part in PARTS
        },
    }
    return Made(
        settings,
        temperature,
        threshold,
        _evidence_scale(maps, settings.preprocess.size),
        composition,
        {"validation": validation},
    )


def evaluate_test(run: Path) -> RunRecord:
    """Evaluate a complete run on test, once; writes ``predictions.csv`` (of validation and test) and ``run.json``.

    Parameters
    ----------
    run
        The folder.

    Returns
    -------
    RunRecord
        With ``test`` among its metrics.

    Raises
    ------
    CommandError
        If the run is not complete, damaged, or test was evaluated before.
    """
    record, settings = read_record(run), read_started(run).settings
    if "test" in record.metrics:
        raise CommandError(f"the run in '{run}' was evaluated on test before: its figures stand in {RUN}")
    network = CamNetwork(record.architecture)
    load_weights(network, run / WEIGHTS)
    windows, split = load_windows(run / WINDOWS), read_split(run)
    # Training images are not scored again: what the network makes of them says nothing of others.
    found = np.full(len(split.parts), np.nan)
    for part in ("val", "test"):
        rows = split.rows(part)
        found[rows] = expit(score(network, windows, rows, settings)[0] / record.temperature)
    validation, test_cases = (split.cases(part, found[split.rows(part)]) for part in ("val", "test"))
    test = evaluate(test_cases, record.threshold, settings.seed, validation)
    write_probabilities(run / PREDICTIONS, split, found)
    record = record.model_copy(update={"metrics": record.metrics | {"test": test}})
    write_json(run / RUN, record)
    return record


def score(
    network: CamNetwork, windows: Windows, rows: npt.NDArray[np.intp], settings: Settings
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Score windows in float32 on the crops that are served.

    Parameters
    ----------
    network
        Put into evaluation mode.
    windows, rows
        Of a cohort, and which N of them.
    settings
        Of the run.

    Returns
    -------
    tuple of arrays
        Logit of metastatic minus logit of benign, float64 [N]; maps, float32 [N, 2, h, w].
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    served = as_served(network, mirrored=settings.mirrored).to(device).eval()
    served = served.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocess = Preprocess(**settings.preprocess.model_dump()).to(device)
    samples = Samples(windows, np.zeros(len(windows)), rows)
    found, drawn = [], []
    with torch.inference_mode(), _exact():
        for image, spacing, center, _ in DataLoader(samples, 2 * settings.batch, collate_fn=collate):
            crop = preprocess(image.to(device), spacing.to(device), center.to(device))
            logits, maps = served(crop.contiguous(memory_format=torch.channels_last))
            found.append((logits[:, 1] - logits[:, 0]).double().cpu())
            drawn.append(maps.float().cpu().contiguous())
    return torch.cat(found).numpy(), torch.cat(drawn).numpy()


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Keep convolutions on a GPU in float32: by default cuDNN rounds what it multiplies to TF32, ten bits."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def _evidence_scale(maps: npt.NDArray[np.float32], size: int) -> float:
    """Return what the heatmap shows as 255: a percentile of the positive evidence, in units of the logits."""
    cam = Cam(1.0, 1.0, (maps.shape[2], maps.shape[3]), size)
    evidence = cam.evidence(torch.from_numpy(maps)).numpy()
    positive = evidence[evidence > 0]
    # Where nothing ever speaks for metastasis every heatmap is black at any scale.
    return float(np.percentile(positive, EVIDENCE_PERCENTILE)) if len(positive) else 1.0
