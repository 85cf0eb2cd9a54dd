"""A training run to a bundle: the float graphs, their int8 variant, and the proof."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_train.cohort import load_windows
from lymphcad_train.graphs import Cam, Preprocess, Whole
from lymphcad_train.networks import CamNetwork, as_served
from lymphcad_train.run import WINDOWS, read_record, read_split
from lymphcad_train.statistics import evaluate, summary
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad_export.bundle import Meaning, export_bundle, maps_of
from lymphcad_export.half import halve_weights
from lymphcad_export.parity import check, compare, crops_of, engine_scores, torch_scores
from lymphcad_export.quantize import quantize_cnn

if TYPE_CHECKING:
    from collections.abc import Callable

    from lymphcad.bundle import Bundle

CALIBRATION_CROPS = 1024
"""At most."""
CARD = "model_card.md"
ENGINES = ("onnxruntime", "openvino")
SERVED = "openvino"
"""The engine whose figures the bundle carries: the one that serves the CNN on a CPU."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PARTS = {"val": "validation", "test": "test"}


def export_run(
    run: Path, out: Path, precision: str, name: str, say: Callable[[str], None], card: Path | None = None
) -> Bundle:
    """Export a complete run, and publish it only if it agrees with torch on the validation and test crops.

    Parameters
    ----------
    run
        What `lymphcad train` left.
    out
        A folder that does not exist.
    precision
        ``fp32``, ``fp16`` (weights only) or ``int8``.
    name
        Of the bundle.
    say
        Told what is going on.
    card
        A model card that goes into the bundle, Markdown.

    Returns
    -------
    Bundle
        Its metrics are measured on its own graphs.

    Raises
    ------
    CommandError
        If the run is not complete or was changed, `out` exists, or the name has other characters than letters,
        digits, dot, hyphen and underscore.
    ParityError
        If the graphs are too far from torch; nothing is published.
    """
    if not _NAME.fullmatch(name):
        raise CommandError(f"'{name}' cannot be a bundle's name: use up to 64 letters, digits, dots and hyphens")
    if card is not None and not card.is_file():
        raise CommandError(f"there is no model card '{card}': --card takes the one that `lymphcad compare` wrote")
    record = read_record(run)
    if not (run / WEIGHTS).is_file() or sha256(run / WEIGHTS) != record.weights_sha256:
        raise CommandError(f"{WEIGHTS} in '{run}' is not the file that run.json names: train again")
    trained = CamNetwork(record.architecture)
    load_weights(trained, run / WEIGHTS)
    network = as_served(trained, mirrored=record.mirrored).eval()
    windows, split = load_windows(run / WINDOWS), read_split(run)
    window = record.preprocess.model_dump()
    calibration = _spread(np.flatnonzero(split.parts == "train"))
    proof = np.flatnonzero(split.parts != "train")
    labels = split.labels[proof]

    def finish(folder: Path) -> dict[str, Any]:
        made: dict[str, Any] = {"command": f"lymphcad export {run.name} --out {out.name} --precision {precision}"}
        made["command"] += f" --name {name}"
        if precision == "int8":
            say(f"Calibrating on {len(calibration)} training crops")
            crops = crops_of(folder, windows, calibration.tolist())
            quantize_cnn(folder / "cnn.onnx", crops)
            made["calibration"] = {
                "crops": len(crops),
                "part": "train",
                "sha256": hashlib.sha256(np.round(crops * 255).astype(np.uint8).tobytes()).hexdigest(),
            }
        if precision == "fp16":
            halve_weights(folder / "cnn.onnx")
        say(f"Comparing with torch on {len(proof)} validation and test crops")
        size = record.preprocess.size
        cam = Cam(record.temperature, record.evidence_scale, maps_of(network, size), size)
        reference = torch_scores(Whole(Preprocess(**window), network, cam), windows, proof.tolist())
        scores = {engine: engine_scores(folder, engine, windows, proof.tolist()) for engine in ENGINES}
        found = {engine: compare(scores[engine], reference, labels, record.threshold) for engine in ENGINES}
        for engine, agreement in found.items():
            say(
                f"{engine}: probabilities differ by {agreement.probability_max:.2g} at most and"
                f" {agreement.probability_mean:.2g} on average, {agreement.flips} calls change, AUROC by"
                f" {agreement.auroc_difference:+.4f}"
            )
            check(engine, agreement, len(proof), precision)
        metrics: dict[str, Any] = {"engine": SERVED}
        cases = {part: split.cases(part, scores[SERVED].probabilities[split.parts[proof] == part]) for part in _PARTS}
        for part, title in _PARTS.items():
            validation = cases["val"] if part == "test" else None
            metrics[title] = summary(evaluate(cases[part], record.threshold, int(record.training["seed"]), validation))
        metrics["parity"] = {
            "reference": "torch, float32",
            "crops": len(proof),
            **{engine: asdict(agreement) for engine, agreement in found.items()},
        }
        if card is not None:
            shutil.copyfile(card, folder / CARD)
        return {"precision": precision, "metrics": metrics, "training": record.training | {"export": made}}

    meaning = Meaning(name, record.architecture, record.threshold, record.temperature, record.evidence_scale)
    say("Exporting the graphs")
    return export_bundle(out, network, window, meaning, finish)


def _spread(rows: np.ndarray[Any, np.dtype[np.intp]]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return at most `CALIBRATION_CROPS` of the rows, evenly spread."""
    if len(rows) <= CALIBRATION_CROPS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, CALIBRATION_CROPS).round().astype(np.intp)]
