"""The edge variant's answer against a real Triton server's, on the same nodes, for every runner that CPUs have."""

from __future__ import annotations

import numpy as np
import pytest
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.phantom.sample import sample_nodes

pytest.importorskip("torch")

from lymphcad_export.parity import LIMITS, hot_spot

pytestmark = [pytest.mark.server, pytest.mark.torch]
NODES, SEED = 40, 7
PROBABILITY = {precision: limits.probability or 0.05 for precision, limits in LIMITS.items()}
"""An export has no limit on single probabilities in int8: those of the golden inputs stand in."""
APART_MM = 1.0


@pytest.fixture(scope="module", params=["demo", "lidc", "probe"])
def served(request, tmp_path_factory):
    """Return a bundle (int8, fp16 and fp32), nodes of phantoms, and the server's findings for them."""
    bundles = DEMO_BUNDLE.parent
    bundle = request.getfixturevalue("probe_bundle") if request.param == "probe" else Bundle(bundles / request.param)
    models = tmp_path_factory.mktemp("repository") / "models"
    write_repository(bundle, models, Target.EMBEDDED)
    nodes = sample_nodes(NODES, SEED)
    with Server(models, free_ports()) as server, TritonScorer(server.address) as scorer:
        return bundle, nodes, [scorer.score(*node) for node in nodes]


def test_the_bundles_have_all_precisions(probe_bundle):
    kept = [probe_bundle, *(Bundle(DEMO_BUNDLE.parent / name) for name in ("demo", "lidc"))]
    assert {bundle.manifest.preferred for bundle in kept} == set(LIMITS)


@pytest.mark.parametrize("runner", ["openvino", "onnxruntime"])
def test_the_same_answer_as_the_server(served, runner):
    bundle, nodes, expected = served
    with EdgeScorer(bundle, runner=runner) as scorer:
        found = [scorer.score(*node) for node in nodes]
    precision = bundle.manifest.preferred
    assert scorer.precision == precision
    probabilities = [[one.probability for one in findings] for findings in (found, expected)]
    assert np.ptp(probabilities[1]) > 0.05  # else agreement would say nothing
    assert np.abs(np.subtract(*probabilities)).max() <= PROBABILITY[precision]
    assert [one.call for one in found] == [one.call for one in expected]
    assert [(one.threshold, one.bundle) for one in found] == [(one.threshold, one.bundle) for one in expected]
    pixel_mm = bundle.manifest.preprocess.field_of_view_mm / bundle.manifest.preprocess.size
    shown = [
        (one.heatmap, other.heatmap)
        for one, other in zip(found, expected, strict=True)
        if np.ptp(one.heatmap) > 0 and np.ptp(other.heatmap) > 0
    ]
    assert len(shown) >= NODES / 4
    apart = [float(np.linalg.norm(hot_spot(one) - hot_spot(other))) * pixel_mm for one, other in shown]
    assert max(apart) <= APART_MM
