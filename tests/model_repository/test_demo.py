from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from lymphcad.assets import DEMO_BUNDLE
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


def run_demo(out, *missing):
    """Run the demo in a process of its own that may not import torch, nor what is named."""
    code = f"import sys; sys.modules.update(dict.fromkeys({['torch', *missing]}))\n"
    code += "from lymphcad.cli import main; main(sys.argv[1:])"
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}  # no tritonserver there
    said = subprocess.run(
        [sys.executable, "-c", code, "demo", "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "Research use only" in said.stdout
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["scored"] * 8
    assert all((out / row["heatmap"]).is_file() for row in rows)
    return rows, said


@pytest.mark.server
def test_the_demo_scores_its_study_with_a_server_and_without(tmp_path):
    rows, said = run_demo(tmp_path / "out")
    assert "The server has stopped." in said.stderr
    with (tmp_path / "out" / "study" / "cohort.csv").open(newline="") as file:
        known = list(csv.DictReader(file))
    # The probabilities are the network's, not noise: metastatic nodes score higher on the whole.
    of = {
        label: [float(r["probability"]) for r, k in zip(rows, known, strict=True) if k["label"] == label]
        for label in "01"
    }
    assert sum(of["1"]) / len(of["1"]) > sum(of["0"]) / len(of["0"]) + 0.2
    # On a Mac, on Arm, on Python 3.13 there is no server.
    without, said = run_demo(tmp_path / "edge", "pytriton", "tritonclient", "grpc", "google")
    assert (
        "No Triton server can run on this machine (there is no tritonserver on PATH and none installed" in said.stderr
    )
    assert "pip install 'lymphcad[serve]'" in said.stderr
    assert "the edge variant scores without one" in said.stderr
    for one, other in zip(rows, without, strict=True):
        assert [one[name] for name in ("image", "call", "bundle")] == [
            other[name] for name in ("image", "call", "bundle")
        ]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=0.01)
