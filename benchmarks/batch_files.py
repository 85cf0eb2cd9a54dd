"""The files and tables that `benchmarks.batch` has scored: phantom slices of 512 x 512 pixels."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import JPEG2000Lossless

from lymphcad.phantom.cohort import write_cohort

if TYPE_CHECKING:
    from pathlib import Path

NODES_A_SLICE = 4
"""In the tables that list a slice's nodes one after the other."""
_IMAGES_A_PATIENT = 5


@dataclass(frozen=True)
class Files:
    """Two folders with the same slices.

    Attributes
    ----------
    samples
        Name of each slice's file, and the place of the node on it.
    uncompressed, jpeg2000
        Where they lie in either encoding.
    """

    samples: list[tuple[str, float, float]]
    uncompressed: Path
    jpeg2000: Path

    def table(self, nodes: int, *, jpeg2000: bool = False, grouped: bool = False) -> Path:
        """Write a table of nodes.

        Parameters
        ----------
        nodes
            How many; the files are gone through as often as it takes.
        jpeg2000
            Whether on the compressed files.
        grouped
            Whether `NODES_A_SLICE` nodes of a slice follow each other; otherwise every node is on another file than the
            one before it.

        Returns
        -------
        Path
            The table, in the files' folder.
        """
        path = (self.jpeg2000 if jpeg2000 else self.uncompressed) / f"{'grouped' if grouped else 'spread'}-{nodes}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "row", "col", "node"])
            for number in range(nodes):
                sample = number // NODES_A_SLICE if grouped else number
                name, row, col = self.samples[sample % len(self.samples)]
                # A slice's further nodes lie some pixels beside its own: other windows, and no two rows alike.
                aside = number // len(self.samples) % 8 if not grouped else number % NODES_A_SLICE
                writer.writerow([name, f"{row:.2f}", f"{col + aside:.2f}", number])
        return path


def write_files(folder: Path, count: int) -> Files:
    """Write distinct slices.

    Parameters
    ----------
    folder
        A new one.
    count
        Of slices.

    Returns
    -------
    Files
        Uncompressed, and the same in lossless JPEG 2000.
    """
    uncompressed, jpeg2000 = folder / "uncompressed", folder / "jpeg2000"
    patients = max(1, count // _IMAGES_A_PATIENT)
    write_cohort(uncompressed, patients, count, 1, workers=2, advance=lambda _: None)
    with (uncompressed / "cohort.csv").open(newline="") as file:
        samples = [(row["image"], float(row["row"]), float(row["col"])) for row in csv.DictReader(file)]
    for name, _, _ in samples:
        dataset = pydicom.dcmread(uncompressed / name)
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        (jpeg2000 / name).parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(jpeg2000 / name, enforce_file_format=True)
    return Files(samples, uncompressed, jpeg2000)
