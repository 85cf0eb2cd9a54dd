"""A training run to a bundle: the graphs in each precision, and the proof of each."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_train.cohort import load_windows, read_windows
from lymphcad_train.graphs import Cam, Preprocess, Whole
from lymphcad_train.networks import CamNetwork, as_served
from lymphcad_train.run import SPLIT, WINDOWS, read_record, read_split
from lymphcad_train.statistics import evaluate, summary
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights

from lymphcad.bundle import PRECISIONS, sha256
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_cohort
from lymphcad_export.artefacts import make_proven
from lymphcad_export.bundle import Meaning, export_bundle, maps_of
from lymphcad_export.card import CARD, card_text
from lymphcad_export.proof import PARITY_JSON, Prover
from lymphcad_export.reference import reference_of
from lymphcad_export.scores import SERVED, crops_of, torch_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from lymphcad_train.cohort import Windows
    from lymphcad_train.run import RunRecord, Split

    from lymphcad.bundle import Bundle, Precision
    from lymphcad.bundle import Preprocess as Window

CALIBRATION_CROPS = 1024
"""At most."""
LICENSE = "LICENSE"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Wanted:
    """What a bundle is to be.

    Attributes
    ----------
    precisions
        Of the CNN.
    name
        Of the bundle.
    card, licence
        Files that go into it: the model card (Markdown), the licence of the weights (by default this project's own).
    calibrate_on
        A cohort's table whose images calibrate in place of the run's own training images.
    images
        Folders in which SOP Instance UIDs of that table are looked for.
    sign
        File of the private key that signs it.
    """

    precisions: tuple[Precision, ...]
    name: str
    card: Path | None = None
    licence: Path | None = None
    calibrate_on: Path | None = None
    images: Sequence[Path] = ()
    sign: Path | None = None


def export_run(run: Path, out: Path, wanted: Wanted, say: Callable[[str], None]) -> Bundle:
    """Export a complete run, and publish it only if it agrees with torch on the validation and test crops.

    Parameters
    ----------
    run
        What `lymphcad train` left.
    out
        A folder that does not exist.
    wanted
        What it is to be.
    say
        Told what is going on.

    Returns
    -------
    Bundle
        Its metrics are measured on its own graphs.

    Raises
    ------
    CommandError
        If the run is not complete or was changed, `out` exists, the name has other characters than letters, digits,
        dot, hyphen and underscore, or a file that was given cannot be used.
    ParityError
        If the graphs are too far from torch; nothing is published, and pictures are in ``OUT.refused``.
    """
    aside = _check(out, wanted)
    record, network = _read_run(run)
    windows, split = load_windows(run / WINDOWS), read_split(run)
    window = record.preprocess.model_dump()
    proof = np.flatnonzero(split.parts != "train")
    command = _command(run, out, wanted)
    calibrating = windows, _spread(np.flatnonzero(split.parts == "train")).tolist()
    if wanted.calibrate_on is not None:
        calibrating = _other_cohort(wanted.calibrate_on, wanted.images, record.preprocess)

    def finish(folder: Path) -> dict[str, Any]:
        crops = crops_of(folder, *calibrating)
        digest = hashlib.sha256(np.round(crops * 255).astype(np.uint8).tobytes()).hexdigest()
        cohort = record.training["cohort_sha256"] if wanted.calibrate_on is None else sha256(wanted.calibrate_on)
        calibration = {"crops": len(crops), "part": "train", "cohort_sha256": cohort, "sha256": digest}
        say(f"Comparing with torch on {len(proof)} validation and test crops")
        size = record.preprocess.size
        cam = Cam(record.temperature, record.evidence_scale, maps_of(network, size), size)
        reference = torch_scores(Whole(Preprocess(**window), network, cam), windows, proof.tolist())
        seed = int(record.training["seed"])
        prover = Prover(
            folder, windows, proof.tolist(), split.images[proof], split.cases_of(proof, reference.probabilities),
            reference, record.threshold, record.preprocess.field_of_view_mm, seed,
        )  # fmt: skip
        kept = {}
        for precision in wanted.precisions:
            say(f"Making and proving {precision}")
            kept[precision] = make_proven(precision, prover, crops, aside, say)
            for engine, one in prover.found[precision].items():
                say(
                    f"{precision} in {engine}: probabilities differ by {one.probability_max:.2g} at most,"
                    f" {one.flips} calls change, AUROC by {one.auroc_difference:+.4f}"
                )
        made = {"command": command, "calibration": calibration, "kept": kept}
        (folder / PARITY_JSON).write_text(json.dumps(prover.contents(made), indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card_text(wanted.card, record, prover, command), encoding="utf-8")
        shutil.copyfile(wanted.licence or _own_licence(), folder / LICENSE)
        preferred = next(precision for precision in PRECISIONS if precision in wanted.precisions)
        scores = prover.scores[preferred][SERVED].probabilities
        return {
            "precisions": list(wanted.precisions),
            "metrics": _metrics(record, split, proof, scores) | {"engine": SERVED, "precision": preferred},
            "training": record.training | {"export": made},
            "reference": reference_of(windows, record.preprocess.field_of_view_mm, scores).model_dump(),
        }

    meaning = Meaning(wanted.name, record.architecture, record.threshold, record.temperature, record.evidence_scale)
    say("Exporting the graphs")
    return export_bundle(out, network, window, meaning, finish, wanted.sign)


def _check(out: Path, wanted: Wanted) -> Path:
    """Refuse what cannot be; return the folder for what is left of a failure."""
    if not _NAME.fullmatch(wanted.name):
        raise CommandError(f"'{wanted.name}' cannot be a bundle's name: use up to 64 letters, digits, dots and hyphens")
    for option, file in (("--card", wanted.card), ("--license", wanted.licence)):
        if file is not None and not file.is_file():
            raise CommandError(f"there is no file '{file}': {option} takes one that goes into the bundle")
    aside = out.with_name(f"{out.name}.refused")
    for folder in (out, aside):
        if folder.exists():
            raise CommandError(f"'{folder}' exists: name a new folder for the bundle, or take it away")
    return aside


def _read_run(run: Path) -> tuple[RunRecord, Any]:
    """Return the record and the network, as it is served; refuses files that are not those of the record."""
    record = read_record(run)
    trained = CamNetwork(record.architecture)
    load_weights(trained, run / WEIGHTS)
    if sha256(run / WEIGHTS) != record.weights_sha256:
        raise CommandError(f"{WEIGHTS} in '{run}' is not the file that run.json names: train again")
    for name, digest in record.data_sha256.items():
        if name not in (WINDOWS, SPLIT) or not (run / name).is_file() or sha256(run / name) != digest:
            raise CommandError(
                f"{name} in '{run}' is not of the cohort that the network was trained on: copy the run again, and name"
                " another cohort to calibrate on with --calibrate-on"
            )
    return record, as_served(trained, mirrored=record.mirrored).eval()


def _other_cohort(table: Path, images: Sequence[Path], preprocess: Window) -> tuple[Windows, list[int]]:
    """Return the windows of a table's training rows (of all where it has no split), and which of them to take."""
    rows = [row for row in read_cohort(table) if row.split in (None, "train")]
    if not rows:
        raise CommandError(f"'{table}' has no training rows: calibration looks at no others")
    finder = ImageFinder(table.parent, list(images))
    reach = preprocess.field_of_view_mm
    windows = read_windows(rows, ["train"] * len(rows), finder, preprocess, reach, _nothing, _nothing)
    return windows, _spread(np.arange(len(rows))).tolist()


def _nothing(*_: object) -> None:
    """Show no progress."""


def _metrics(
    record: RunRecord, split: Split, proof: npt.NDArray[np.intp], probabilities: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Return what the served engine's probabilities of the validation and test crops are worth."""
    cases = {part: split.cases(part, probabilities[split.parts[proof] == part]) for part in _PARTS}
    seed = int(record.training["seed"])
    return {
        title: summary(evaluate(cases[part], record.threshold, seed, cases["val"] if part == "test" else None))
        for part, title in _PARTS.items()
    }


def _command(run: Path, out: Path, wanted: Wanted) -> str:
    """Return the command that repeats export and proof, without the folders of this machine."""
    words = [f"lymphcad export {run.name} --out {out.name} --precision {','.join(wanted.precisions)}"]
    words.append(f"--name {wanted.name}")
    given = {"card": wanted.card, "license": wanted.licence, "calibrate-on": wanted.calibrate_on}
    words += [f"--{option} {file.name}" for option, file in given.items() if file is not None]
    return " ".join(words)


def _own_licence() -> Path:
    """Return the licence of this project, as it is installed."""
    # Not one of a bundle that is installed with it, which stands in the same list.
    listed = [file for file in files("lymphcad") or [] if file.parts[0].endswith(".dist-info")]
    found = [Path(str(file.locate())) for file in listed if file.name == LICENSE]
    if not found:
        raise CommandError("the installed lymphcad has no licence file: install it again, or give one with --license")
    return found[0]


def _spread(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return at most `CALIBRATION_CROPS` of the rows, evenly spread."""
    if len(rows) <= CALIBRATION_CROPS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, CALIBRATION_CROPS).round().astype(np.intp)]
