"""Every network from a trained run to a verified bundle, by the commands that a user gives: small crops, real steps."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from lymphcad_serve.verify import verify_bundle
from lymphcad_train.networks import ARCHITECTURES

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_from_training_to_a_verified_bundle(architecture, network_bundles):
    bundle = network_bundles[architecture]
    found = verify_bundle(bundle)
    assert found.golden == tuple(
        who
        for precision in ("int8", "fp16")
        for graph in (precision, f"edge.{precision}.onnx")
        for who in (f"{graph} in openvino", f"{graph} in onnxruntime")
    )
    proof = json.loads((bundle / "parity.json").read_text())
    assert {one["precision"] for one in proof["artefacts"]} == {"fp16", "int8"}
    assert all(one["flips"] == 0 for one in proof["artefacts"])
