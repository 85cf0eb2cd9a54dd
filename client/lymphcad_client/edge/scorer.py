"""Score on this machine, without a server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.finding import Finding, finding
from lymphcad.geometry import cut_window
from lymphcad_client.edge.cache import default_cache
from lymphcad_client.edge.cpu import cores
from lymphcad_client.edge.runner import check_runner, choose_runner, slow_note

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from lymphcad.bundle import Bundle, Precision
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice
    from lymphcad_client.edge.runner import Name

_OPENING = threading.Lock()
"""OpenVINO's binding initialises itself in its first call, and two first calls at once wait for each other for ever
(2026.4.1)."""


class EdgeScorer:
    """Score nodes with a bundle's merged graph in this process.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    runner
        ``auto`` or one of `lymphcad_client.edge.runner.Name`; see `lymphcad_client.edge.runner.choose_runner`.
    precision
        Of the CNN; the bundle's preferred one if None.
    engines
        What ``lymphcad plan --rtx`` wrote, for TensorRT-RTX.
    cache
        A folder for compiled models; the user's own if None.

    Attributes
    ----------
    manifest, digest
        The bundle's.
    precision
        In which the CNN is computed.
    about
        Which runner was taken, why, and what else is to be known of it: one or more sentences.
    at_once
        As many as there are cores: with more, ONNX Runtime is slower and memory larger.

    Raises
    ------
    CommandError
        If the runner is not installed or cannot run here.
    BundleError
        If the bundle lacks the precision, or an engine is not the bundle's.
    GoldenError
        If this machine computes something else for the golden inputs than the bundle was proven with.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        runner: Name = "auto",
        precision: Precision | None = None,
        engines: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self.manifest, self.digest, self.at_once = bundle.manifest, bundle.digest, cores()
        with _OPENING:
            chosen = choose_runner(bundle, runner, precision=precision, engines=engines, cache=cache or default_cache())
            self._runner = chosen.runner
            self.precision = chosen.runner.precision
            self.about = f"Scored in {self.precision} by {chosen.runner.about} ({chosen.why})."
            if note := slow_note(chosen.runner):
                self.about += f" {note}"
            try:
                # Each time: a compiled model of a cache, another CPU and another version are all checked by it.
                check_runner(self._runner, bundle)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> EdgeScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_no_longer(self) -> None:
        """Do nothing: this process answers what it was given."""

    def close(self) -> None:
        """Give memory back."""
        self._runner.close()

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score one node; see `lymphcad_client.scorer.Scorer.score`."""
        preprocess = self.manifest.preprocess
        return self.score_window(cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size))

    def score_window(self, window: Window) -> Finding:
        """Score a node's window; see `lymphcad_client.scorer.Scorer.score_window`."""
        answer = self._runner.run({
            "IMAGE": window.image[np.newaxis],
            "SPACING_MM": np.array([window.spacing_mm], np.float32),
            "CENTER": np.array([window.center], np.float32),
        })  # fmt: skip
        return finding(self.manifest, self.digest, answer["PROBABILITY"], answer["HEATMAP"])
