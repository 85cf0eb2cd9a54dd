"""Phantom nodes in memory: those that a bundle's golden inputs are made of, and a study to try the dashboard with."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.memory_file import MemoryFile
from lymphcad.phantom.anatomy import draw_neck, paint_neck
from lymphcad.phantom.canvas import Canvas, scan
from lymphcad.phantom.cohort import SIZE, place_in
from lymphcad.phantom.dicom_file import SLICE_MM, ct_file
from lymphcad.phantom.node import paint_node, place_node
from lymphcad.phantom.signs import draw_signs
from lymphcad.slice import CtSlice

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY_SLICES = 30
STUDY_LABELS = {"N1": 1, "N2": 0, "N3": 1, "N4": 0}
"""What the nodes of the sample study really are, from below: 1 metastatic, 0 benign."""
_STUDY = (22, 3)
"""Seed and stream: cohorts have stream 1 and `sample_nodes` has 2, so this is nobody that a bundle learned from or was
proven with. A seed where the demo bundle calls all four nodes rightly (probabilities 0.97, 0.26, 0.99 and 0.16,
threshold 0.43). Two nodes are painted partly over their neighbours: N1 over muscle, N2 over a vein and muscle."""
_LOWEST = 4
"""Slot of the study's first slice; 0 is the inlet of the thorax, 40 the hyoid bone."""
_SLOTS = 40


def sample_nodes(count: int, seed: int) -> list[tuple[CtSlice, float, float]]:
    """Draw nodes of one phantom patient, benign and metastatic in turn.

    Parameters
    ----------
    count
        How many, each on a slice of its own.
    seed
        Of everything.

    Returns
    -------
    list of tuple
        Slice (all of one spacing), row and column of the node's centre, pixels.
    """
    rng = np.random.default_rng([seed, 2])
    neck = draw_neck(rng, SIZE)
    found = []
    for number in range(count):
        signs = draw_signs(rng, number % 2)
        shape = place_node(neck, signs, rng)
        canvas = Canvas(SIZE, neck.spacing_mm, neck.middle, neck.turn)
        paint_neck(canvas, neck, (number + 0.5) / count, rng)
        paint_node(canvas, shape, signs, rng)
        hu = scan(canvas.hu, rng, neck.blur_mm / neck.spacing_mm, neck.noise_hu)
        spacing = (neck.spacing_mm, neck.spacing_mm)
        found.append((CtSlice(hu, spacing, Path(f"phantom {number}")), *canvas.pixel(shape.x, shape.y)))
    return found


def sample_study(advance: Callable[[int], None]) -> tuple[list[MemoryFile], bytes]:
    """Make a phantom patient's CT of the neck, and a table of its nodes; the same one each time.

    Parameters
    ----------
    advance
        Called with 1 after each of `STUDY_SLICES` slices.

    Returns
    -------
    list of MemoryFile, bytes
        The slices, CT Images from below upwards, `SLICE_MM` apart; and ``nodes.csv``, UTF-8: ``image`` (a slice's
        file name), ``row`` and ``col`` (pixels) of each node where it is largest, and ``node``. The nodes are those of
        `STUDY_LABELS`, each on 2 to 4 neighbouring slices.
    """
    rng = np.random.default_rng(_STUDY)
    neck = draw_neck(rng, SIZE)
    nodes = []
    for number, label in enumerate(STUDY_LABELS.values()):
        signs = draw_signs(rng, label)
        middle = round((number + 0.5) * STUDY_SLICES / len(STUDY_LABELS))
        nodes.append((signs, place_node(neck, signs, rng), _sections(signs.diameter_mm, middle)))
    files, rows = [], []
    names = [f"{instance:04d}.dcm" for instance in range(1, STUDY_SLICES + 1)]
    for index, name in enumerate(names):
        canvas = Canvas(SIZE, neck.spacing_mm, neck.middle, neck.turn)
        # What varies from slice to slice in a cohort is the same in all of these, so that nothing jumps.
        paint_neck(canvas, neck, (_LOWEST + index) / _SLOTS, np.random.default_rng([*_STUDY, 0]))
        for number, (signs, shape, sections) in enumerate(nodes, start=1):
            if index in sections:
                section = replace(shape, a=shape.a * sections[index], b=shape.b * sections[index])
                paint_node(canvas, section, signs, np.random.default_rng([*_STUDY, number]))
                if max(sections, key=sections.__getitem__) == index:
                    row, col = canvas.pixel(shape.x, shape.y)
                    rows.append((name, f"{row:.2f}", f"{col:.2f}", list(STUDY_LABELS)[number - 1]))
        hu = scan(canvas.hu, rng, neck.blur_mm / neck.spacing_mm, neck.noise_hu)
        place = place_in(neck, "phantom study", 1, index + 1, _LOWEST + index)
        files.append(MemoryFile(name, ct_file(hu, place)))
        advance(1)
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("image", "row", "col", "node"), *rows])
    return files, table.getvalue().encode()


def _sections(diameter_mm: float, middle: int) -> dict[int, float]:
    """Return the slices that show a node, an ellipsoid, and its section in each as a share of the largest one."""
    count = min(max(round(diameter_mm / SLICE_MM), 2), 4)
    first = middle - count // 2
    heights = [(2 * index - (count - 1)) / count for index in range(count)]  # from -1 to 1 in the ellipsoid
    widths = [math.sqrt(1 - height**2) for height in heights]
    return {first + index: width / max(widths) for index, width in enumerate(widths)}
