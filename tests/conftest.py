"""The tools that more than one folder of tests needs: a network whose answer is known, and the real server on it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lymphcad.slice import CtSlice

# A test starts servers while its threads call one: what gRPC does in a child before it becomes the server can abort it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lymphcad.bundle import Bundle

FIELD_MM, SIZE = 40.0, 64
WINDOW = {"field_of_view_mm": FIELD_MM, "window_level_hu": 50.0, "window_width_hu": 400.0, "size": SIZE}


@pytest.fixture(scope="session")
def window() -> dict[str, float]:
    return WINDOW


@pytest.fixture(scope="session")
def brightness():
    """Return a network of which every answer can be told by hand: its metastatic map is the crop, averaged 4 x 4."""
    torch = pytest.importorskip("torch")

    class Brightness(torch.nn.Module):
        def forward(self, crop):
            bright = torch.nn.functional.avg_pool2d(crop, 4)
            maps = torch.cat([torch.zeros_like(bright), bright], dim=1)
            return maps.mean(dim=(2, 3)), maps

    return Brightness()


@pytest.fixture(scope="session")
def probe_bundle(tmp_path_factory, brightness) -> Bundle:
    from lymphcad_export.bundle import Meaning, export_bundle

    meaning = Meaning("probe", "brightness", threshold=0.55, temperature=0.5, evidence_scale=1.0)
    return export_bundle(tmp_path_factory.mktemp("bundles") / "probe", brightness, WINDOW, meaning)


@pytest.fixture(scope="session")
def half_bundle(tmp_path_factory, brightness) -> Bundle:
    """Return a bundle whose CNN is in float16, as a GPU is served from."""
    from lymphcad_export.bundle import Meaning, export_bundle
    from lymphcad_export.half import to_half
    from lymphcad_export.onnx_graphs import cnn_file

    def finish(folder: Path) -> dict[str, object]:
        crops = np.random.default_rng(0).random((2, 1, SIZE, SIZE), dtype=np.float32)
        to_half(cnn_file(folder, "fp32"), cnn_file(folder, "fp16"), crops)
        return {"precisions": ["fp16"]}

    meaning = Meaning("half", "brightness", threshold=0.55, temperature=0.5, evidence_scale=1.0)
    return export_bundle(tmp_path_factory.mktemp("bundles") / "half", brightness, WINDOW, meaning, finish)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep compiled models of the tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def serve_probe(tmp_path_factory, probe_bundle) -> Iterator[Callable[[str], str]]:
    """Yield a function that returns the address of a real tritonserver on the probe bundle, one for each target."""
    if not _can_serve():
        pytest.skip("no tritonserver: pip install 'lymphcad[serve]'")
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    with contextlib.ExitStack() as stack:
        addresses: dict[str, str] = {}

        def address(target: str) -> str:
            if target not in addresses:
                models = tmp_path_factory.mktemp("repository") / "models"
                write_repository(probe_bundle, models, Target(target))
                addresses[target] = stack.enter_context(Server(models, free_ports())).address
            return addresses[target]

        yield address


@pytest.fixture(scope="session", params=["embedded", "embedded-steps"])
def probe_server(request, serve_probe) -> str:
    """Return the address of the server, once with all in one step and once as the three-step ensemble."""
    return serve_probe(request.param)


@pytest.fixture(scope="session", params=["embedded", "embedded-steps", "openvino", "onnxruntime"])
def scored_by(request, probe_bundle) -> tuple[str, ...]:
    """Return the options of `lymphcad score` for each server and each runner of the edge variant that CPUs have."""
    if request.param.startswith("embedded"):
        return "--server", request.getfixturevalue("serve_probe")(request.param)
    pytest.importorskip(request.param)
    return "--edge", str(probe_bundle.path), "--runner", request.param


@pytest.fixture(scope="session")
def made_cohort(tmp_path_factory) -> Path:
    """Return the table of 64 made images of 32 patients: a bright or a dark disc, metastatic or benign."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("cohort")
    generator = np.random.default_rng(0)
    lines = ["image,row,col,label,patient,diameter_mm,spacing_mm"]
    rows, columns = np.mgrid[:112, :112]
    for number in range(64):
        label, radius = number // 2 % 2, generator.uniform(10, 20)
        at = generator.uniform(50, 60, 2)
        inside = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2
        grey = 110 + generator.normal(0, 12, (112, 112)) + inside * (60 if label else -40)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{at[0]:.2f},{at[1]:.2f},{label},p{number // 2},{radius:.1f},0.5")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


@pytest.fixture(scope="session")
def train_command(made_cohort) -> Callable[..., int]:
    """Return a function that runs `lymphcad train` on the made cohort, small, and returns its exit code."""
    pytest.importorskip("torch")
    from lymphcad.cli import main

    def run(out: Path, *options: str, cohort: Path = made_cohort) -> int:
        small = ["--size", "48", "--progressive", "32", "--epochs", "3", "--batch", "6", "--lr", "0.002"]
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as ended:
                main(["train", str(cohort), "--out", str(out), "--weights", "none", *small, *options])
        finally:
            signal.signal(signal.SIGINT, on_interrupt)  # which Lightning ignores after the first
        return int(ended.value.code or 0)

    return run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, train_command) -> Path:
    """Return the folder of a complete run: five epochs of ResNet50, the first three at a smaller crop."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train_command(out, "--epochs", "5", "--batch", "4") == 0
    return out


def _can_serve() -> bool:
    import importlib.util
    import shutil

    return "CI" in os.environ or bool(importlib.util.find_spec("pytriton") or shutil.which("tritonserver"))


@pytest.fixture
def slice_of(tmp_path) -> Callable[..., CtSlice]:
    def make(hu: np.ndarray, spacing: tuple[float, float] = (0.5, 0.5)) -> CtSlice:
        return CtSlice(np.ascontiguousarray(hu, dtype=np.int16), spacing, tmp_path / "made.dcm")

    return make


@pytest.fixture
def write_plan() -> Callable[..., Path]:
    """Return a function that writes a plan of a bundle; no engine, but what stands beside it is as it should be."""
    from lymphcad.bundle import sha256
    from lymphcad.plan import Profile, Sidecar, sidecar_of

    def write(bundle: Bundle, plan: Path, **fields: object) -> Path:
        plan.write_bytes(b"no engine" * 100)
        onnx = next(name for name in bundle.manifest.files if name.startswith("cnn"))
        known = {
            "library": "tensorrt",
            "version": "10.13.2.6",
            "gpu": "NVIDIA L4",
            "compute_capability": "8.9",
            "driver": "570.1",
            "plan_sha256": sha256(plan),
            "onnx": onnx,
            "onnx_sha256": bundle.manifest.files[onnx],
            "bundle": bundle.label,
            "bundle_sha256": bundle.digest,
            "max_batch": 32,
            "profile": Profile(min=(1, 1, 64, 64), opt=(16, 1, 64, 64), max=(32, 1, 64, 64)),
            "flags": ("TF32",),
            "comparison": None,
            "command": "lymphcad plan demo --out plan --max-batch 32",
        }
        sidecar_of(plan).write_text(Sidecar.model_validate(known | fields).model_dump_json())
        return plan

    return write
