"""Pictures for the report: what a network saw on test, and what spoke for metastasis, hits and misses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from lymphcad.overlay import draw_pair
from lymphcad.png import png_bytes
from lymphcad_train.cohort import load_windows
from lymphcad_train.data import Samples, collate
from lymphcad_train.graphs import Cam, Preprocess
from lymphcad_train.networks import CamNetwork, as_served
from lymphcad_train.report import Picture
from lymphcad_train.run import WINDOWS, read_probabilities, read_record, read_split
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path

EACH = 6
"""Pictures of each kind, at most."""
_KINDS = {
    (1, True): "true positive",
    (1, False): "false negative",
    (0, True): "false positive",
    (0, False): "true negative",
}
_CLASSES = ("benign", "metastatic")


def gallery(run: Path) -> dict[str, list[Picture]]:
    """Draw images of a run's test part: of each kind those about which the network was most sure.

    Parameters
    ----------
    run
        Complete, and evaluated on test.

    Returns
    -------
    dict of str to list of Picture
        As `lymphcad_train.report.write_report` takes it; at most one picture of a patient and kind, `EACH` of a kind.
    """
    record, split = read_record(run), read_split(run)
    probabilities = read_probabilities(run)
    kinds: dict[str, list[int]] = {kind: [] for kind in _KINDS.values()}
    shown: set[tuple[str, str]] = set()
    test = split.rows("test")
    for row in test[np.argsort(-np.abs(probabilities[test] - record.threshold), kind="stable")]:
        kind = _KINDS[int(split.labels[row]), bool(probabilities[row] >= record.threshold)]
        if len(kinds[kind]) < EACH and (kind, str(split.patients[row])) not in shown:
            kinds[kind].append(int(row))
            shown.add((kind, str(split.patients[row])))
    network = CamNetwork(record.architecture)
    load_weights(network, run / WEIGHTS)
    preprocess = Preprocess(**record.preprocess.model_dump())
    served = as_served(network, mirrored=record.mirrored).eval()
    windows = load_windows(run / WINDOWS)
    found: dict[str, list[Picture]] = {}
    for kind, rows in kinds.items():
        found[kind] = []
        samples = Samples(windows, split.labels, rows)
        for row, (image, spacing, center, _) in zip(rows, DataLoader(samples, 1, collate_fn=collate), strict=True):
            with torch.inference_mode():
                crop = preprocess(image, spacing, center)
                logits, maps = served(crop)
                cam = Cam(record.temperature, record.evidence_scale, maps.shape[2:], record.preprocess.size)
                heatmap = cam(logits, maps)[1]
            diameter = split.diameters_mm[row]
            size = "" if np.isnan(diameter) else f", {diameter:.1f} mm"
            caption = f"{probabilities[row]:.2f}; {_CLASSES[split.labels[row]]}{size}"
            found[kind].append(Picture(png_bytes(draw_pair(crop[0, 0].numpy(), heatmap[0].numpy())), caption))
    return found
