"""What a trained network's scores mean: temperature and threshold from validation, the evidence scale, the figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit
from torch.utils.data import DataLoader

from lymphcad_train import augment
from lymphcad_train import settings as constants
from lymphcad_train.data import Samples, collate
from lymphcad_train.graphs import Cam, Preprocess
from lymphcad_train.run import RunRecord
from lymphcad_train.split import PARTS
from lymphcad_train.statistics import evaluate, fit_temperature, youden_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lymphcad.tables import CohortRow
    from lymphcad_train.cohort import Windows
    from lymphcad_train.networks import CamNetwork
    from lymphcad_train.settings import Settings

EVIDENCE_PERCENTILE = 99.0
_CLASSES = ("benign", "metastatic")


@dataclass(frozen=True)
class Made:
    """A trained network's meaning.

    Attributes
    ----------
    probabilities
        float64 [N], of every row of the cohort, calibrated.
    """

    settings: Settings
    probabilities: npt.NDArray[np.float64]
    temperature: float
    threshold: float
    evidence_scale: float
    composition: dict[str, Any]
    metrics: dict[str, Any]

    def record(
        self,
        cohort_sha256: str,
        command: str,
        progress: dict[str, int],
        versions: dict[str, str],
        weights_sha256: str,
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
            preprocess=chosen.preprocess,
            evidence_scale=self.evidence_scale,
            temperature=self.temperature,
            threshold=self.threshold,
            training=training,
            metrics=self.metrics,
            versions=versions,
            weights_sha256=weights_sha256,
        )


def make_record(
    network: CamNetwork, windows: Windows, rows: Sequence[CohortRow], parts: Sequence[str], settings: Settings
) -> Made:
    """Score the whole cohort in float32, as it is served, and find what gives the scores their meaning.

    Parameters
    ----------
    network
        Trained.
    windows, rows, parts
        The cohort: pixels, table and split.
    settings
        Of the run.

    Returns
    -------
    Made
        Temperature and threshold see validation only; test is evaluated with both.
    """
    labels = np.array([row.label for row in rows])
    patients = np.array([row.patient for row in rows])
    diameters = np.array([row.diameter_mm if row.diameter_mm is not None else np.nan for row in rows])
    of = {part: np.flatnonzero(np.array(parts) == part) for part in PARTS}
    margins, maps = score(network, windows, settings)
    temperature = fit_temperature(margins[of["val"]], labels[of["val"]])
    probabilities = expit(margins / temperature)
    threshold = float(expit(youden_threshold(margins[of["val"]] / temperature, labels[of["val"]])))
    metastatic = of["train"][labels[of["train"]] == 1]
    metrics = {
        name: evaluate(
            probabilities[of[part]], labels[of[part]], patients[of[part]], diameters[of[part]], threshold, settings.seed
        )
        for name, part in (("validation", "val"), ("test", "test"))
    }
    counts = Counter(zip(parts, labels.tolist(), strict=True))
    composition = {
        "n": len(rows),
        "patients": len(np.unique(patients)),
        "split": "from the table" if rows[0].split is not None else "by patient, stratified",
        "patients_per_part": {part: len(np.unique(patients[numbers])) for part, numbers in of.items()},
        "images_per_part": {part: {name: counts[part, label] for label, name in enumerate(_CLASSES)} for part in PARTS},
    }
    return Made(
        settings,
        probabilities,
        temperature,
        threshold,
        _evidence_scale(maps[metastatic], settings.preprocess.size),
        composition,
        metrics,
    )


def score(
    network: CamNetwork, windows: Windows, settings: Settings
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Score windows in float32 on the crops that are served.

    Parameters
    ----------
    network
        Put into evaluation mode.
    windows
        N of them.
    settings
        Of the run.

    Returns
    -------
    tuple of arrays
        Logit of metastatic minus logit of benign, float64 [N]; maps, float32 [N, 2, h, w].
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    preprocess = Preprocess(**settings.preprocess.model_dump()).to(device)
    samples = Samples(windows, [0] * len(windows), range(len(windows)))
    found, drawn = [], []
    with torch.inference_mode():
        for image, spacing, center, _ in DataLoader(samples, 2 * settings.batch, collate_fn=collate):
            logits, maps = network(preprocess(image.to(device), spacing.to(device), center.to(device)))
            found.append((logits[:, 1] - logits[:, 0]).double().cpu())
            drawn.append(maps.float().cpu().contiguous())
    return torch.cat(found).numpy(), torch.cat(drawn).numpy()


def _evidence_scale(maps: npt.NDArray[np.float32], size: int) -> float:
    """Return what the heatmap shows as 255: a percentile of the positive evidence, in units of the logits."""
    cam = Cam(1.0, 1.0, (maps.shape[2], maps.shape[3]), size)
    evidence = cam.evidence(torch.from_numpy(maps)).numpy()
    positive = evidence[evidence > 0]
    # Where nothing ever speaks for metastasis every heatmap is black at any scale.
    return float(np.percentile(positive, EVIDENCE_PERCENTILE)) if len(positive) else 1.0
