"""A CPU without AVX2 and VNNI scores in eight bits, slower and as right: a real run, on a CPU that is emulated."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
import sys

import pytest

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.phantom.cohort import write_cohort

OLD = "SandyBridge"
"""Of 2011: AVX, no AVX2."""


@pytest.fixture(scope="module")
def qemu():
    found = shutil.which("qemu-x86_64")
    if platform.machine() != "x86_64":
        pytest.skip("this machine runs no x86_64 Python")
    if found is None and "CI" not in os.environ:
        pytest.skip("no qemu-x86_64: install qemu-user")
    return found


@pytest.mark.parametrize("runner", ["openvino", "onnxruntime"])
def test_eight_bits_are_as_right(qemu, tmp_path, runner):
    study, out = tmp_path / "study", tmp_path / "out"
    write_cohort(study, 2, 2, 11, workers=1, advance=lambda _: None)
    command = [qemu, "-cpu", OLD, sys.executable, "-m", "lymphcad", "score", "--nodes", study / "cohort.csv"]
    command += ["--edge", DEMO_BUNDLE, "--runner", runner, "--out", out, "--no-overlays"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr  # so the golden inputs gave what they must
    with (out / "results.csv").open(newline="") as file:
        old = list(csv.DictReader(file))
    here = tmp_path / "here"
    command = [sys.executable, *command[4:-3], "--out", here, "--no-overlays"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    with (here / "results.csv").open(newline="") as file:
        new = list(csv.DictReader(file))
    assert [row["call"] for row in old] == [row["call"] for row in new]
    for one, other in zip(old, new, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=0.05)
