from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from lymphcad.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def exported(trained_run, tmp_path_factory) -> Path:
    """Return a bundle of the trained run in all precisions, with a model card."""
    folder = tmp_path_factory.mktemp("exported")
    card = folder / "card.md"
    card.write_text("# A card\n")
    options = ["--precision", "fp32,fp16,int8", "--name", "made", "--card", str(card)]
    with pytest.raises(SystemExit) as ended:
        main(["export", str(trained_run), "--out", str(folder / "bundle"), *options])
    assert not ended.value.code
    return folder / "bundle"


@pytest.fixture(scope="session")
def network_bundles(made_cohort, tmp_path_factory) -> dict[str, Path]:
    """Return a bundle of every network, float16 and int8, each trained a little; two at a time, a thread each.

    It takes minutes, so processes that run tests side by side make them once: the second waits for the first.
    """
    from lymphcad_train.networks import ARCHITECTURES

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "networks"
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def lymphcad(*arguments: object) -> None:
        command = [sys.executable, "-m", "lymphcad", *map(str, arguments)]
        done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def make(architecture: str) -> None:
        run, bundle = folder / f"{architecture}-run", folder / architecture
        # 80 pixels: the Inceptions take no smaller crop. VGG, without batch normalisation, takes smaller steps. On the
        # few crops that there are no pair may change places, so each network is to tell them apart well.
        epochs = 12 if architecture == "tf_efficientnet_lite0" else 4
        options = ["--weights", "none", "--size", 80, "--progressive", 0, "--epochs", epochs, "--batch", 6]
        options += ["--lr", 0.0005 if architecture.startswith("vgg") else 0.002]
        lymphcad("train", made_cohort, "--out", run, "--arch", architecture, *options)
        lymphcad("export", run, "--out", bundle)

    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(make, ARCHITECTURES))
    return {architecture: folder / architecture for architecture in ARCHITECTURES}
