from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lymphcad_train import augment  # noqa: E402
from lymphcad_train.augment import Augment  # noqa: E402
from lymphcad_train.graphs import Preprocess  # noqa: E402

from lymphcad import bundle  # noqa: E402
from lymphcad.geometry import cut_window  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("size", [64, 45])
def test_without_disturbance_it_is_the_served_crop_turned_or_mirrored(monkeypatch, slice_of, window, size):
    for name, value in {"SHIFT_MM": 0, "SCALE": 1, "ROTATION_DEG": 0, "GAIN": 1, "OFFSET_HU": 0, "NOISE_HU": 0}.items():
        monkeypatch.setattr(augment, name, value)
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(-100, 200, (300, 280), dtype=np.int16)
    cut = cut_window(slice_of(image, (0.5, 0.4)), 150.3, 130.7, augment.reach_mm(40.0), size)
    arguments = (torch.from_numpy(cut.image)[None], torch.tensor([cut.spacing_mm]), torch.tensor([cut.center]))
    settings = bundle.Preprocess.model_validate({**window, "size": size})
    served = Preprocess(**settings.model_dump())(*arguments)[0, 0]
    expected = [torch.rot90(side, k) for side in (served, served.T) for k in range(4)]
    module = Augment(settings, size)
    met = set()
    for _ in range(64):
        crop = module(*arguments)[0, 0]
        distances = [(crop - one).abs().max().item() for one in expected]
        assert min(distances) < 1e-3
        met.add(int(np.argmin(distances)))
    assert met == set(range(8))


def test_the_window_of_a_run_holds_what_every_disturbed_crop_weighs(slice_of, window):
    """Fill the slice beyond the window with metal: no crop may see it."""
    torch.manual_seed(0)
    flat = np.full((400, 400), 50, np.int16)
    cut = cut_window(slice_of(flat, (0.5, 0.5)), 200.0, 200.0, augment.reach_mm(40.0), 64)
    metal = np.full((512, 512), 3000, np.int16)
    side = cut.image.shape[0]
    assert side < 512
    first = (512 - side) // 2
    metal[first : first + side, first : first + side] = cut.image
    center = torch.tensor([cut.center]) + first
    module = Augment(bundle.Preprocess.model_validate(window), 64)
    for _ in range(100):
        crop = module(torch.from_numpy(metal)[None], torch.tensor([cut.spacing_mm]), center)
        # 50 HU is the window's middle; gain, offset and noise move it by less than the rest of the window
        assert crop.max().item() < 0.9
