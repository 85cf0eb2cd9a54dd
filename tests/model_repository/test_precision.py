"""Each precision that the embedded server computes in, against torch on the same crops of real CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from pydicom.data import get_testdata_file

from lymphcad.dicom import read_slice
from lymphcad.geometry import cut_window

torch = pytest.importorskip("torch")

from lymphcad_export.bundle import Meaning, export_bundle  # noqa: E402
from lymphcad_export.quantize import Quantizer  # noqa: E402
from lymphcad_train.graphs import Cam, Preprocess, Whole  # noqa: E402

pytestmark = [pytest.mark.server, pytest.mark.torch]

SCALE = 30.0
# Probability (largest difference) and heatmap (levels of 255, largest and mean).
TOLERANCES = {"f32": (1e-5, 1, 0.01), "bf16": (0.01, 3, 0.1), "int8": (0.02, 6, 0.5)}


class Small(torch.nn.Module):
    """Three convolutions of random weights, scaled so that logits and maps spread over the range of a trained one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        conv = torch.nn.Conv2d
        self.features = torch.nn.Sequential(
            conv(1, 16, 5, stride=2, padding=2), torch.nn.ReLU(), conv(16, 32, 3, stride=2, padding=1), torch.nn.ReLU()
        )
        self.maps = conv(32, 2, 1, bias=False)
        with torch.no_grad():
            self.maps.weight.mul_(150)

    def forward(self, crop):
        maps = self.maps(self.features(crop - 0.5))
        return maps.mean(dim=(2, 3)), maps


@pytest.fixture(scope="module")
def nodes():
    """Return slices of real CT with nodes on them: a chest and a head."""
    generator = np.random.default_rng(2)
    found = []
    for name in ("CT_small.dcm", "J2K_pixelrep_mismatch.dcm"):
        ct = read_slice(Path(get_testdata_file(name)))
        inside = np.argwhere(ct.hu > -200)
        found += [(ct, *map(float, inside[at])) for at in generator.integers(len(inside), size=8)]
    return found


@pytest.fixture(scope="module")
def network():
    return Small().eval()


@pytest.fixture(scope="module")
def crops(nodes, window):
    preprocess = Preprocess(**window)
    cut = [cut_window(*node, window["field_of_view_mm"], window["size"]) for node in nodes]
    found = [
        preprocess(torch.from_numpy(one.image[None]), torch.tensor([one.spacing_mm]), torch.tensor([one.center]))
        for one in cut
    ]
    return torch.cat(found).numpy()


@pytest.mark.parametrize("precision", TOLERANCES)
def test_served_answer_is_torchs(tmp_path, nodes, network, crops, window, precision):
    if precision == "bf16":
        openvino = pytest.importorskip("openvino")
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this CPU has no bfloat16")

    def finish(folder):
        if precision != "int8":
            return {}
        Quantizer(folder / "cnn.fp32.onnx", crops).write(folder / "cnn.int8.onnx")
        return {"precisions": ["int8"]}

    meaning = Meaning(precision, "small", threshold=0.5, temperature=1.0, evidence_scale=SCALE)
    bundle = export_bundle(tmp_path / "bundle", network, window, meaning, finish)
    whole = Whole(Preprocess(**window), network, Cam(1.0, SCALE, bundle.manifest.map_size, window["size"]))
    write_repository(bundle, tmp_path / "models", Target.EMBEDDED, bf16=precision == "bf16")
    off, levels, seen = [], [], []
    with Server(tmp_path / "models", free_ports()) as server, TritonScorer(server.address) as scorer:
        for ct, row, col in nodes:
            found = scorer.score(ct, row, col)
            with torch.inference_mode():
                expected, heatmap = whole(
                    torch.from_numpy(ct.hu[None]), torch.tensor([ct.spacing_mm]), torch.tensor([[row, col]])
                )
            seen.append(expected.item())
            off.append(abs(found.probability - expected.item()))
            levels.append(np.abs(found.heatmap.astype(int) - heatmap[0].numpy().astype(int)))
    assert max(seen) - min(seen) > 0.2  # else agreement would say nothing
    probability, largest, mean = TOLERANCES[precision]
    assert max(off) < probability
    assert np.max(levels) <= largest
    assert np.mean(levels) < mean
    if precision != "f32":
        assert max(off) > 1e-5  # it did compute in the precision that was asked for
