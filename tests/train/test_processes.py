"""Several processes of one training, started by torchrun as on a cluster, on gloo."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from lymphcad_train.run import read_record, read_split  # noqa: E402

pytestmark = pytest.mark.torch

SEEN = """
import sys
import lymphcad_train.training as training
from lymphcad.cli import main

step, check = training.Training.training_step, training.Training.validation_step


def seen(name, of):
    def spy(self, batch):
        with open(f"{sys.argv[1]}/{name}-{self.number}", "a") as file:
            for image, center in zip(batch[0], batch[2]):
                print(self.current_epoch, int(image.long().sum()), *center.tolist(), file=file)
        return of(self, batch)

    return spy


training.Training.training_step = seen("train", step)
training.Training.validation_step = seen("val", check)
main(sys.argv[2:])
"""


def test_two_processes_share_the_images_and_agree(made_cohort, tmp_path):
    script, out, seen = tmp_path / "seen.py", tmp_path / "run", tmp_path / "seen"
    script.write_text(SEEN)
    seen.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ["--size", "48", "--progressive", "0", "--epochs", "2", "--batch", "4", "--lr", "0.002"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--nnodes", "1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), str(script), str(seen)]
    command += ["train", str(made_cohort), "--out", str(out), "--arch", "tf_efficientnet_lite0", "--weights", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*command, *small], capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    split = read_split(out)
    for part in ("train", "val"):
        shares = [(seen / f"{part}-{number}").read_text().splitlines() for number in (0, 1)]
        for epoch in "01":
            lines = [[line for line in share if line.startswith(epoch)] for share in shares]
            assert len(lines[0]) == len(lines[1]) > 0
            both = lines[0] + lines[1]
            assert len(set(both)) == len(both) == (split.parts == part).sum()  # no image twice
    with (out / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    record = read_record(out)
    assert record.training["epochs_run"] == 2
    assert record.metrics["test"]["n"] == (split.parts == "test").sum()
