"""The proof of every artefact: ``parity.json``, the table in the model card, and what is left of a failure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.overlay import draw_pair
from lymphcad_export.onnx_graphs import cnn_file, edge_file
from lymphcad_export.parity import LIMITS, Agreement, ParityError, broken_limits, compare, flipped
from lymphcad_export.scores import EDGE, crops_of, engine_scores, engines

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from lymphcad_train.cohort import Windows
    from lymphcad_train.statistics import Cases

    from lymphcad.bundle import Precision
    from lymphcad_export.scores import Scores

PARITY_JSON = "parity.json"
_SHOWN = 12
"""Pictures of a failure, at most."""
_MOST_MOVED = 4
"""Crops that are shown though their calls did not change."""


@dataclass
class Prover:
    """Compares artefacts with torch on the validation and test crops of a run, and keeps what it found.

    Attributes
    ----------
    folder
        With the graphs.
    windows, rows
        Of the run, and which N of them.
    images
        str [N], as the cohort's table names them.
    cases
        Labels and patients, N.
    reference
        Torch's scores, N.
    threshold, field_of_view_mm, seed
        Of the run.
    found
        Agreements by precision and engine, of what was looked at last.
    scores
        Likewise.
    """

    folder: Path
    windows: Windows
    rows: list[int]
    images: npt.NDArray[np.str_]
    cases: Cases
    reference: Scores
    threshold: float
    field_of_view_mm: float
    seed: int
    found: dict[Precision, dict[str, Agreement]] = field(default_factory=dict)
    scores: dict[Precision, dict[str, Scores]] = field(default_factory=dict)

    def broken(self, precision: Precision) -> list[str]:
        """Look at the artefacts of a precision.

        Parameters
        ----------
        precision
            Its graphs lie in the folder.

        Returns
        -------
        list of str
            The limits that they are over, in words; empty if they may be published.
        """
        self.found[precision], self.scores[precision] = {}, {}
        broken = []
        for engine in engines():
            scores = engine_scores(self.folder, precision, engine, self.windows, self.rows)
            self.scores[precision][engine] = scores
            agreement = compare(scores, self.reference, self.cases, self.threshold, self.field_of_view_mm, self.seed)
            self.found[precision][engine] = agreement
            broken += [f"{precision} in {engine}: {words}" for words in broken_limits(agreement, precision)]
        return broken

    def refuse(self, precision: Precision, broken: list[str], aside: Path) -> ParityError:
        """Write what is to be seen of a failure, and return the error.

        Parameters
        ----------
        precision
            That failed.
        broken
            What `broken` returned.
        aside
            A folder for ``parity.json`` and pictures; made if needed.

        Returns
        -------
        ParityError
            One sentence that names the first limit, the images whose calls change, and the folder.
        """
        aside.mkdir(parents=True, exist_ok=True)
        changed: list[dict[str, Any]] = []
        for engine, scores in self.scores[precision].items():
            flips = flipped(scores, self.reference, self.threshold)
            moved = np.abs(scores.probabilities - self.reference.probabilities)
            order = [int(at) for at in np.argsort(-moved) if flips[at]]
            order += [int(at) for at in np.argsort(-moved)[:_MOST_MOVED] if not flips[at]]
            for at in order[: _SHOWN // 2]:
                name = f"{precision}-{engine}-{at:04d}.png"
                self._draw(aside / name, at, scores)
                changed.append({
                    "image": str(self.images[at]),
                    "engine": engine,
                    "call_changes": bool(flips[at]),
                    "torch": float(self.reference.probabilities[at]),
                    "artefact": float(scores.probabilities[at]),
                    "picture": name,
                })  # fmt: skip
        (aside / PARITY_JSON).write_text(
            json.dumps({"broken": broken, "images": changed, **self.contents({})}, indent=2) + "\n", encoding="utf-8"
        )
        named = sorted({one["image"] for one in changed if one["call_changes"]})
        images = (
            f" The calls of {', '.join(named[:3])}{' and others' if len(named) > 3 else ''} change." if named else ""
        )
        return ParityError(
            f"the graphs are too far from torch, nothing was published: {broken[0]}.{images} Both probabilities and"
            f" pictures are in '{aside}'"
        )

    def contents(self, more: dict[str, Any]) -> dict[str, Any]:
        """Return what ``parity.json`` says, and `more` first."""
        return {
            **more,
            "reference": "the trained network in torch, float32",
            "crops": "validation and test",
            "limits": {precision: asdict(LIMITS[precision]) for precision in self.found},
            "artefacts": [
                {"file": self._file(precision, engine), "precision": precision, "engine": engine, **asdict(agreement)}
                for precision, found in self.found.items()
                for engine, agreement in found.items()
            ],
            "notice": RESEARCH_USE_ONLY,
        }

    def table(self) -> str:
        """Return the agreements as a table in Markdown."""
        heads = (
            "artefact", "engine", "crops", "largest difference of a probability", "mean", "calls that change",
            "AUROC (95 % interval)", "heatmap correlation, mean (lowest)", "hot spots apart, mm, mean (largest)",
        )  # fmt: skip
        lines = [heads, ("---",) * len(heads)]
        for precision, found in self.found.items():
            for engine, one in found.items():
                low, high = one.auroc_difference_ci95
                lines.append((
                    self._file(precision, engine), engine, str(one.crops),
                    f"{one.probability_max:.2g}", f"{one.probability_mean:.2g}", str(one.flips),
                    f"{one.auroc_difference:+.4f} ({low:+.4f} to {high:+.4f})",
                    _pair(one.heatmap_correlation, one.heatmap_correlation_min, 4),
                    _pair(one.hot_spot_mm_mean, one.hot_spot_mm_max, 2),
                ))  # fmt: skip
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def _file(self, precision: Precision, engine: str) -> str:
        return (edge_file if engine == EDGE else cnn_file)(self.folder, precision).name

    def _draw(self, path: Path, at: int, scores: Scores) -> None:
        """Draw a crop under torch's heatmap (above) and the artefact's (below)."""
        from PIL import Image

        crop = crops_of(self.folder, self.windows, [self.rows[at]])[0, 0]
        pairs = [draw_pair(crop, of.heatmaps[at]) for of in (self.reference, scores)]
        picture = Image.new("RGB", (pairs[0].width, 2 * pairs[0].height))
        for number, pair in enumerate(pairs):
            picture.paste(pair, (0, number * pair.height))
        picture.save(path)


def _pair(mean: float | None, worst: float | None, digits: int) -> str:
    return "–" if mean is None or worst is None else f"{mean:.{digits}f} ({worst:.{digits}f})"
