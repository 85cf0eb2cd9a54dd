from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lymphcad_train.graphs import Cam, Preprocess  # noqa: E402
from lymphcad_train.networks import CamNetwork  # noqa: E402

from lymphcad.geometry import cut_window  # noqa: E402

pytestmark = pytest.mark.torch


def crop_of(preprocess, image, spacing, center):
    return preprocess(torch.from_numpy(image[None]), torch.tensor([spacing]), torch.tensor([center]))[0, 0].numpy()


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.3, 0.7), (0.11, 0.9)])
@pytest.mark.parametrize("center", [(100.0, 90.0), (1.5, 3.25), (0.0, 179.0), (199.4, 100.0)])
def test_window_and_whole_slice_give_the_same_crop(slice_of, window, spacing, center):
    image = np.random.default_rng(1).integers(-1000, 1000, (200, 180), dtype=np.int16)
    preprocess = Preprocess(**window)
    cut = cut_window(slice_of(image, spacing), *center, window["field_of_view_mm"], window["size"])
    whole = crop_of(preprocess, image, spacing, center)
    np.testing.assert_allclose(crop_of(preprocess, cut.image, cut.spacing_mm, cut.center), whole, atol=2e-5)


def test_a_flat_image_stays_flat_also_when_the_crop_shrinks_it(window):
    image = np.full((700, 700), 50, np.int16)
    np.testing.assert_allclose(crop_of(Preprocess(**window), image, (0.08, 0.08), (350.0, 350.0)), 0.5, atol=1e-5)


def test_beyond_the_border_lies_zero(window):
    image = np.full((200, 200), 250, np.int16)
    crop = crop_of(Preprocess(**window), image, (0.5, 0.5), (0.0, 100.0))
    assert crop[:30].max() < 1e-6
    np.testing.assert_allclose(crop[36:], 1, atol=1e-5)


def test_probability_and_heatmap_by_hand():
    cam = Cam(temperature=2.0, evidence_scale=4.0, map_size=(2, 2), size=4)
    maps = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]], [[4.0, 2.0], [-3.0, 8.0]]]])
    probability, heatmap = cam(torch.tensor([[1.0, 3.0]]), maps)
    assert probability.item() == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert heatmap.dtype == torch.uint8
    assert heatmap[0, 0].tolist() == [255, round(255 * 3.5 / 4), round(255 * 2.5 / 4), 128]
    assert heatmap[0, 3, 0] == 0
    assert heatmap[0, 3, 3] == 255


def test_logits_are_the_mean_of_the_maps():
    network = CamNetwork("resnet50").eval()
    with torch.inference_mode():
        network.bias.copy_(torch.tensor([0.5, -0.25]))
        logits, maps = network(torch.rand(2, 1, 64, 64))
    assert maps.shape == (2, 2, 2, 2)
    torch.testing.assert_close(logits, maps.mean(dim=(2, 3)) + network.bias)
