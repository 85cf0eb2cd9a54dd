"""The tools that more than one folder of tests needs: a network whose answer is known, and the real server on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from lymphcad.slice import CtSlice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="session", params=["embedded", "embedded-steps"])
def probe_server(request, tmp_path_factory, probe_bundle) -> Iterator[str]:
    """Yield the address of a real tritonserver, once with all in one step and once as the three-step ensemble."""
    if not _can_serve():
        pytest.skip("no tritonserver: pip install 'lymphcad[serve]'")
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    models = tmp_path_factory.mktemp("repository") / "models"
    write_repository(probe_bundle, models, Target(request.param))
    with Server(models, free_ports()) as server:
        yield server.address


def _can_serve() -> bool:
    import importlib.util
    import os
    import shutil

    return "CI" in os.environ or bool(importlib.util.find_spec("pytriton") or shutil.which("tritonserver"))


@pytest.fixture
def slice_of(tmp_path) -> Callable[..., CtSlice]:
    def make(hu: np.ndarray, spacing: tuple[float, float] = (0.5, 0.5)) -> CtSlice:
        return CtSlice(np.ascontiguousarray(hu, dtype=np.int16), spacing, tmp_path / "made.dcm")

    return make
