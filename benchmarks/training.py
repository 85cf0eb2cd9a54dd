"""How much of the network's own speed is left in training: ``python -m benchmarks.training [--json] [--arch NAME]``.

On the GPU if torch finds one. In one run, in rounds that take turns: `lymphcad_train`'s own epoch (crops,
augmentation, loss, clipping, optimizer, moving average, Lightning around it), and the bare loop of forward and backward
of the same network, batch, precision and memory format on one ready batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lymphcad_train.cohort import Windows
from lymphcad_train.data import Samples
from lymphcad_train.launch import precision, run_epochs
from lymphcad_train.networks import ARCHITECTURES, CamNetwork
from lymphcad_train.settings import DROP_PATH, Settings
from lymphcad_train.training import Training
from rich.console import Console

from benchmarks.processes import machine
from lymphcad.bundle import Preprocess

IMAGES, WINDOW = 995, 120
"""The paper's cohort; windows as a field of view of 40 mm at 0.5 mm a pixel needs them."""
_LEAD = 2


class Timed(Training):
    """A training that notes when each step of an epoch ended."""

    def on_train_epoch_start(self) -> None:
        """Begin to count."""
        super().on_train_epoch_start()
        self.ended = [time.perf_counter()]

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Note the time."""
        super().on_train_batch_end(*arguments)
        if len(self.ended) in (_LEAD, self.trainer.num_training_batches):
            synchronize()
        self.ended.append(time.perf_counter())


def device() -> str:
    """Return where Lightning trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cohort(images: int) -> Windows:
    """Return noisy windows; what they show makes no difference to speed."""
    generator = np.random.default_rng(0)
    hu = [generator.normal(60, 40, (WINDOW, WINDOW)).astype(np.int16) for _ in range(images)]
    return Windows(hu, np.full((images, 2), 0.5, np.float32), np.full((images, 2), WINDOW / 2, np.float32))


def trained(settings: Settings, windows: Windows, steps: int) -> float:
    """Return the images/s of `lymphcad_train`'s epoch over a number of steps, after the first two."""
    labels = (np.arange(len(windows)) % 2).astype(np.float32)
    network = CamNetwork(settings.architecture, drop_path=DROP_PATH)
    in_training = Samples(windows, labels, np.arange((_LEAD + steps) * settings.batch))
    in_validation = Samples(windows, labels.astype(np.int64), np.arange(4))
    with tempfile.TemporaryDirectory() as folder:
        module = Timed(settings, network, in_training, in_validation, Path(folder))
        run_epochs(module, None, Console(stderr=True, quiet=True))
    return steps * settings.batch / (module.ended[-1] - module.ended[_LEAD])


def bare(settings: Settings, steps: int) -> float:
    """Return the images/s of forward and backward, after two steps that warm up."""
    network = CamNetwork(settings.architecture, drop_path=DROP_PATH).to(device()).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = settings.preprocess.size
    crop = torch.rand(settings.batch, 1, size, size, device=device()).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(settings.batch, device=device()) % 2
    for step in range(_LEAD + steps):
        if step == _LEAD:
            synchronize()
            start = time.perf_counter()
        network.zero_grad()
        with torch.autocast(device(), torch.bfloat16, enabled=precision() == "bf16-mixed"):
            logits = network(crop)[0]
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    synchronize()
    return steps * settings.batch / (time.perf_counter() - start)


def measure(name: str, size: int, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Measure one network.

    Parameters
    ----------
    name
        Of the network.
    size
        Side of the crop, pixels.
    batch
        Images in a step.
    steps
        That are timed in each round.
    rounds
        Of both contenders.

    Returns
    -------
    dict
        Images/s, medians over the rounds: ``bare`` and ``trained``; ``ratio`` of the two; ``lowest_highest``;
        ``peak_gib``, the most memory that this process has had, with the paper's number of images in it;
        ``peak_gpu_gib``, the most that its tensors had on the GPU, if there is one.
    """
    settings = Settings(
        architecture=name,
        weights="none",
        preprocess=Preprocess(field_of_view_mm=40, window_level_hu=60, window_width_hu=400, size=size),
        progressive=0,
        epochs=1,
        patience=1,
        batch=batch,
        lr=1e-4,
        seed=0,
    )
    windows = cohort(max(IMAGES, (_LEAD + steps) * batch))
    rates: dict[str, list[float]] = {"bare": [], "trained": []}
    contenders = {"bare": lambda: bare(settings, steps), "trained": lambda: trained(settings, windows, steps)}
    for turn in range(rounds):
        for which in list(contenders) if turn % 2 else reversed(list(contenders)):
            rates[which].append(contenders[which]())
    return {
        **{which: round(median(values), 2) for which, values in rates.items()},
        "ratio": round(median(rates["trained"]) / median(rates["bare"]), 3),
        "lowest_highest": {which: [round(min(v), 2), round(max(v), 2)] for which, v in rates.items()},
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        **({"peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if device() == "cuda" else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="resnet50", choices=list(ARCHITECTURES))
    parser.add_argument("--size", type=int, default=224, help="side of the crop, pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    found = measure(options.arch, options.size, options.batch, options.steps, options.rounds)
    gpu = {"gpu": torch.cuda.get_device_name()} if device() == "cuda" else {}
    about = machine() | gpu | {"torch": torch.__version__}
    results = {**found, "settings": settings | {"precision": precision()}, "machine": about}
    if options.json:
        print(json.dumps(results, indent=2))
    print(
        f"{options.arch} at {options.size} px, {options.batch} a step, {precision()}: {found['trained']} of"
        f" {found['bare']} images/s, {found['ratio']:.2f}; at most {found['peak_gib']} GiB",
        file=sys.stderr if options.json else sys.stdout,
    )


if __name__ == "__main__":
    main()
