"""Write a phantom cohort: who has which nodes, the CT files, the tables, and what is known of them."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from lymphcad import RESEARCH_USE_ONLY, __version__
from lymphcad.errors import CommandError
from lymphcad.phantom.anatomy import Neck, draw_neck, paint_neck
from lymphcad.phantom.canvas import Canvas, scan
from lymphcad.phantom.dicom_file import SLICE_MM, Place, write_ct
from lymphcad.phantom.node import paint_node, place_node
from lymphcad.phantom.signs import Signs, auroc, ceilings, draw_signs, log_likelihood_ratio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAPER_PATIENTS, PAPER_IMAGES, PAPER_METASTATIC = 202, 995, 348
"""Lee et al., Eur Radiol 2019;29:5452: 995 axial CT images of 202 patients, 348 of them of malignant nodes."""
MAX_IMAGES = 1_000_000
COLUMNS = ("image", "row", "col", "node", "label", "patient", "lesion", "diameter_mm")
SIZE = 512
"""Rows and columns of an image, pixels."""
_NECK_MM = 100.0
_TWICE_SHOWN = 0.3
"""Share of the lesions that are shown in two neighbouring slices."""


@dataclass(frozen=True)
class Lesion:
    """A node of a patient.

    Attributes
    ----------
    label
        0 benign, 1 metastatic.
    slices
        How many neighbouring slices show it.
    """

    label: int
    slices: int


@dataclass(frozen=True)
class _Image:
    """A written image: its row in cohort.csv, and its signs."""

    row: tuple[str, str, str, str, int, str, str, str]
    signs: Signs


def write_cohort(
    out: Path, patients: int, images: int, seed: int, *, workers: int, advance: Callable[[int], None]
) -> dict[str, object]:
    """Write DICOM files, ``cohort.csv``, ``signs.csv`` and ``phantom.json``.

    The same arguments give the same files, byte for byte, whatever the number of workers.

    Parameters
    ----------
    out
        A folder that does not exist or is empty.
    patients, images
        How many; the share of metastatic images is the paper's.
    seed
        Of everything.
    workers
        Processes.
    advance
        Called with the number of images that were written since the last call.

    Returns
    -------
    dict
        The contents of ``phantom.json``: the composition, and what size and all signs together can reach, both for
        nodes without end (``bayes_auroc``, ``size_auroc``) and for the images of this cohort (``cohort``).

    Raises
    ------
    CommandError
        If the folder is not empty or cannot be written to, or the numbers make no cohort.
    """
    if not 1 <= patients <= images <= MAX_IMAGES or seed < 0:
        raise CommandError(
            f"{patients} patients with {images} images and seed {seed} were asked for, and at least one patient, an"
            f" image for each, at most {MAX_IMAGES} images and a seed from 0 are needed: change --patients, --images or"
            " --seed"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"'{out}' is not an empty folder: name a new one for the cohort")
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        written = _write_images(out, compose(patients, images, seed), seed, workers, advance)
        described = _describe(written, patients, seed)
        _write_table(out / "signs.csv", ("image", *(f.name for f in fields(Signs)), "log_likelihood_ratio"), [
            (image.row[0], *astuple(image.signs), f"{log_likelihood_ratio(image.signs):.4f}") for image in written
        ])  # fmt: skip
        (out / "phantom.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        # Last: a cohort without its table was not finished.
        _write_table(out / "cohort.csv", COLUMNS, [image.row for image in written])
    except OSError as error:
        raise CommandError(f"'{out}' cannot be written to ({error.strerror}): name another folder") from None
    return described


def compose(patients: int, images: int, seed: int) -> list[list[Lesion]]:
    """Share images of both classes out among patients, the paper's share of them metastatic.

    Parameters
    ----------
    patients, images
        How many; at least one image a patient.
    seed
        Of the shares.

    Returns
    -------
    list of list of Lesion
        The lesions of each patient.
    """
    rng = np.random.default_rng([seed, 0])
    counts = 1 + rng.multinomial(images - patients, rng.dirichlet(np.full(patients, 4.0)))
    owner = np.repeat(np.arange(patients), counts)
    # Metastases cluster in patients: some have several, many none.
    inclination = 1.2 * rng.normal(size=patients)[owner] + rng.normal(size=images)
    metastatic = np.zeros(images, bool)
    metastatic[np.argsort(inclination)[images - round(images * PAPER_METASTATIC / PAPER_IMAGES) :]] = True
    cohort = []
    for patient in range(patients):
        lesions: list[Lesion] = []
        for label in (0, 1):
            left = int((metastatic[owner == patient] == label).sum())
            while left:
                slices = min(left, 2 if rng.random() < _TWICE_SHOWN else 1)
                lesions.append(Lesion(label, slices))
                left -= slices
        rng.shuffle(lesions)  # type: ignore[arg-type]
        cohort.append(lesions)
    return cohort


def _write_images(
    out: Path, cohort: list[list[Lesion]], seed: int, workers: int, advance: Callable[[int], None]
) -> list[_Image]:
    written: dict[int, list[_Image]] = {}
    if workers == 1:
        for number, lesions in enumerate(cohort, start=1):
            written[number] = _write_patient(out, number, lesions, seed)
            advance(len(written[number]))
    else:
        with ProcessPoolExecutor(workers) as pool:
            waiting = {
                pool.submit(_write_patient, out, number, lesions, seed): number
                for number, lesions in enumerate(cohort, start=1)
            }
            for done in as_completed(waiting):
                written[waiting[done]] = done.result()
                advance(len(written[waiting[done]]))
    return [image for number in sorted(written) for image in written[number]]


def _write_patient(out: Path, patient: int, lesions: list[Lesion], seed: int) -> list[_Image]:
    """Write one patient's series, from the inlet of the thorax upwards."""
    rng = np.random.default_rng([seed, 1, patient])
    neck = draw_neck(rng, SIZE)
    pairs = max(int(_NECK_MM / SLICE_MM / 2), len(lesions))
    slots = rng.choice(pairs, len(lesions), replace=False)
    shown = []
    for order in np.argsort(slots):
        lesion, signs = lesions[order], draw_signs(rng, lesions[order].label)
        shape = place_node(neck, signs, rng)
        shown += [(int(order) + 1, lesion, signs, shape, int(slots[order]) * 2 + i) for i in range(lesion.slices)]
    name = f"P{patient:04d}"
    (out / "images" / name).mkdir()
    images = []
    for instance, (number, lesion, signs, shape, slot) in enumerate(shown, start=1):
        canvas = Canvas(SIZE, neck.spacing_mm, neck.middle, neck.turn)
        paint_neck(canvas, neck, slot / (2 * pairs), rng)
        paint_node(canvas, shape, signs, rng)
        hu = scan(canvas.hu, rng, neck.blur_mm / neck.spacing_mm, neck.noise_hu)
        relative = f"images/{name}/{instance:04d}.dcm"
        write_ct(out / relative, hu, place_in(neck, f"phantom {seed}", patient, instance, slot))
        row, col = canvas.pixel(shape.x, shape.y)
        node = f"{name}-{instance}"
        images.append(_Image(
            (relative, f"{row:.2f}", f"{col:.2f}", node, lesion.label, name, f"{name}-L{number}",
             f"{signs.diameter_mm:.2f}"),
            signs,
        ))  # fmt: skip
    return images


def place_in(neck: Neck, cohort: str, patient: int, instance: int, slot: int) -> Place:
    """Say where a slice belongs.

    Parameters
    ----------
    neck
        Whose.
    cohort, patient, instance
        As in `Place`.
    slot
        Number of the slice in the neck, upwards from 0 at the inlet of the thorax.

    Returns
    -------
    Place
        Slices of neighbouring slots lie `SLICE_MM` apart.
    """
    first = [-at * neck.spacing_mm for at in neck.middle]
    return Place(cohort, patient, instance, (first[1], first[0], slot * SLICE_MM), neck.spacing_mm)


def _describe(written: list[_Image], patients: int, seed: int) -> dict[str, object]:
    labels = np.array([image.row[4] for image in written])
    known: dict[str, object] = {
        "notice": f"Made by a program, no person. {RESEARCH_USE_ONLY}.",
        "version": __version__,
        "seed": seed,
        "patients": patients,
        "images": len(written),
        "benign": int((labels == 0).sum()),
        "metastatic": int((labels == 1).sum()),
        **ceilings(),
    }
    if 0 < labels.sum() < len(labels):
        ratio = np.array([log_likelihood_ratio(image.signs) for image in written])
        size = np.array([asdict(image.signs)["diameter_mm"] for image in written])
        known["cohort"] = {
            "bayes_auroc": auroc(ratio[labels == 0], ratio[labels == 1]),
            "size_auroc": auroc(size[labels == 0], size[labels == 1]),
        }
    return known


def _write_table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
