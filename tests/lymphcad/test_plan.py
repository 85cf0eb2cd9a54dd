from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lymphcad.bundle import Bundle
from lymphcad.errors import CommandError
from lymphcad.plan import Machine, check_plan, sidecar_of

HERE = Machine("10.13.2.6", "NVIDIA L4", "8.9")


@pytest.fixture
def demo_plan(tmp_path, write_plan):
    """Return a plan of the demo bundle, and the bundle."""
    bundle = Bundle(Path(__file__).parents[2] / "bundles" / "demo")
    return write_plan(bundle, tmp_path / "cnn.plan"), bundle


def change(plan, **fields):
    file = sidecar_of(plan)
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_plan_of_the_bundle_is_accepted_on_the_machine_that_built_it(demo_plan):
    plan, bundle = demo_plan
    for machine in (None, HERE):
        sidecar = check_plan(plan, bundle.manifest, machine)
        assert (sidecar.version, sidecar.gpu, sidecar.max_batch) == (HERE.version, HERE.gpu, 32)


def test_a_plan_that_is_not_there_is_refused(demo_plan):
    plan, bundle = demo_plan
    with pytest.raises(CommandError, match=r"there is no plan .*: build it"):
        check_plan(plan.with_name("other.plan"), bundle.manifest)


def test_a_plan_without_its_sidecar_is_refused(demo_plan):
    plan, bundle = demo_plan
    sidecar_of(plan).unlink()
    with pytest.raises(CommandError, match=r"has no cnn\.plan\.json beside it"):
        check_plan(plan, bundle.manifest)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"more": 1}, "more: Extra inputs"),
        ({"plan_sha256": "0"}, "plan_sha256: "),
        ({"library": "openvino"}, "library: "),
        ({"max_batch": 0}, "max_batch: "),
    ],
)
def test_a_damaged_sidecar_is_refused(demo_plan, fields, words):
    plan, bundle = demo_plan
    change(plan, **fields)
    with pytest.raises(CommandError, match=rf"damaged or of another version \({words}.*build the plan again"):
        check_plan(plan, bundle.manifest)


def test_a_sidecar_cut_short_is_refused(demo_plan):
    plan, bundle = demo_plan
    sidecar_of(plan).write_bytes(sidecar_of(plan).read_bytes()[:100])
    with pytest.raises(CommandError, match="damaged or of another version"):
        check_plan(plan, bundle.manifest)


def test_a_changed_byte_is_refused(demo_plan):
    plan, bundle = demo_plan
    raw = bytearray(plan.read_bytes())
    raw[len(raw) // 2] ^= 1
    plan.write_bytes(raw)
    with pytest.raises(CommandError, match=r"does not match the digest in .* copy it again"):
        check_plan(plan, bundle.manifest)


@pytest.mark.parametrize("fields", [{"onnx_sha256": "0" * 64}, {"onnx": "cam.onnx"}, {"onnx": "other.onnx"}])
def test_a_plan_of_another_graph_is_refused(demo_plan, fields):
    plan, bundle = demo_plan
    change(plan, **fields)
    with pytest.raises(CommandError, match=r"not that of the bundle demo: build it again"):
        check_plan(plan, bundle.manifest)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": "10.13.3.9"}, r"by tensorrt 10\.13\.2\.6, and this machine has 10\.13\.3\.9: build it again"),
        ({"gpu": "NVIDIA A10"}, "built on NVIDIA L4, and this machine has NVIDIA A10: build it again"),
        ({"compute_capability": "8.6"}, r"capability 8\.9, and this machine's NVIDIA L4 has 8\.6: build it again"),
    ],
)
def test_another_tensorrt_or_gpu_is_refused(demo_plan, fields, words):
    plan, bundle = demo_plan
    with pytest.raises(CommandError, match=words):
        check_plan(plan, bundle.manifest, replace(HERE, **fields))


def test_an_engine_that_was_built_ahead_of_time_is_for_every_gpu_of_its_compute_capability(demo_plan):
    plan, bundle = demo_plan
    change(plan, library="tensorrt_rtx", gpu=None)
    check_plan(plan, bundle.manifest, replace(HERE, gpu="NVIDIA RTX 4090"))
    with pytest.raises(CommandError, match=r"capability 8\.9, and this machine's NVIDIA RTX 5090 has 12\.0"):
        check_plan(plan, bundle.manifest, replace(HERE, gpu="NVIDIA RTX 5090", compute_capability="12.0"))
