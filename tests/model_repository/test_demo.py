from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from lymphcad_serve.assets import DEMO_BUNDLE

from lymphcad.bundle import Bundle
from lymphcad.phantom.cohort import PAPER_PATIENTS


def test_the_demo_bundle_is_whole_small_and_honest():
    bundle = Bundle(DEMO_BUNDLE)
    assert sum(file.stat().st_size for file in DEMO_BUNDLE.iterdir()) <= 30e6
    manifest = bundle.manifest
    assert manifest.precisions == ("int8",)
    assert all(one["flips"] <= 1 for one in json.loads((DEMO_BUNDLE / "parity.json").read_text())["artefacts"])
    assert manifest.training["patients"] == PAPER_PATIENTS
    test = manifest.metrics["test"]
    low, high = test["auroc_ci95"]
    assert test["size_baseline_auroc"] < low < test["auroc"] < high


@pytest.mark.server
def test_the_demo_scores_its_study_and_leaves_no_server(tmp_path):
    out = tmp_path / "out"
    # A process of its own, that may not import torch.
    code = "import sys; sys.modules['torch'] = None; from lymphcad.cli import main; main(sys.argv[1:])"
    said = subprocess.run(
        [sys.executable, "-c", code, "demo", "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "Research use only" in said.stdout
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (out / "study" / "cohort.csv").open(newline="") as file:
        known = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["scored"] * 8
    assert all((out / row["heatmap"]).is_file() for row in rows)
    # The probabilities are the network's, not noise: metastatic nodes score higher on the whole.
    of = {
        label: [float(r["probability"]) for r, k in zip(rows, known, strict=True) if k["label"] == label]
        for label in "01"
    }
    assert sum(of["1"]) / len(of["1"]) > sum(of["0"]) / len(of["0"]) + 0.2
