from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Ports, Server, free_ports

from lymphcad.errors import BundleError, CommandError, Reason, ServerError
from lymphcad.plan import check_plan

pytestmark = pytest.mark.server


@pytest.mark.torch
def test_served_answer_is_torchs(probe_server, slice_of, brightness, window):
    import torch
    from lymphcad_train.graphs import Cam, Preprocess, Whole

    whole = Whole(Preprocess(**window), brightness, Cam(0.5, 1.0, (16, 16), 64))
    image = np.random.default_rng(3).integers(-300, 500, (300, 260), dtype=np.int16)
    with TritonScorer(probe_server) as scorer:
        for spacing, center in (((0.5, 0.5), (100.0, 90.5)), ((0.4, 0.7), (2.0, 250.0)), ((0.08, 0.1), (150.0, 20.0))):
            found = scorer.score(slice_of(image, spacing), *center)
            with torch.inference_mode():
                probability, heatmap = whole(
                    torch.from_numpy(image[None]), torch.tensor([spacing]), torch.tensor([center])
                )
            assert found.probability == pytest.approx(probability.item(), abs=1e-5)
            assert np.abs(found.heatmap.astype(int) - heatmap[0].numpy().astype(int)).max() <= 1
            assert found.call == ("metastatic" if found.probability >= 0.55 else "benign")


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.35, 0.8)])
@pytest.mark.parametrize("node", [(128.0, 128.0), (4.0, 250.0)])
@pytest.mark.parametrize("offset_mm", [(0.0, 0.0), (9.0, -6.0), (-12.0, -11.0)])
def test_hot_spot_lands_on_the_lesion(probe_server, slice_of, window, spacing, node, offset_mm):
    rows, columns = np.mgrid[:256, :256]
    lesion = [at + offset / mm for at, offset, mm in zip(node, offset_mm, spacing, strict=True)]
    if not all(4 <= at <= 251 for at in lesion):
        pytest.skip("this lesion would lie beyond the image")
    far = ((rows - lesion[0]) * spacing[0]) ** 2 + ((columns - lesion[1]) * spacing[1]) ** 2
    image = np.where(far < 2.5**2, 240, -150)
    with TritonScorer(probe_server) as scorer:
        heatmap = scorer.score(slice_of(image, spacing), *node).heatmap.astype(float)
    weight = np.where(heatmap > heatmap.max() / 2, heatmap, 0)
    at = [(np.indices(heatmap.shape)[axis] * weight).sum() / weight.sum() for axis in (0, 1)]
    step = window["field_of_view_mm"] / window["size"]
    found_mm = [(value + 0.5) * step - window["field_of_view_mm"] / 2 for value in at]
    assert np.hypot(found_mm[0] - offset_mm[0], found_mm[1] - offset_mm[1]) < 1.0


def test_without_shared_memory_the_answer_is_the_same(probe_server, slice_of):
    ct = slice_of(np.random.default_rng(5).integers(-300, 500, (200, 200)))
    with TritonScorer(probe_server) as shared, TritonScorer(probe_server) as plain:
        plain._shares_memory = False
        first, second = shared.score(ct, 90, 80), plain.score(ct, 90, 80)
        assert shared._slots.qsize() == 1
        assert plain._slots.empty()
    assert first.probability == second.probability
    np.testing.assert_array_equal(first.heatmap, second.heatmap)


def test_another_bundle_is_refused(probe_server):
    with pytest.raises(ServerError) as caught:
        TritonScorer(probe_server, bundle_digest="0" * 64)
    assert caught.value.reason is Reason.OTHER_BUNDLE


def test_a_server_that_is_away():
    with pytest.raises(ServerError) as caught:
        TritonScorer(f"grpc://127.0.0.1:{free_ports().grpc}", timeout_s=2)
    assert caught.value.reason is Reason.SERVER_AWAY


@pytest.mark.parametrize("address", ["127.0.0.1:8001", "http://127.0.0.1:8001", "grpc://nowhere", "grpc://:x"])
def test_a_wrong_address(address):
    with pytest.raises(CommandError, match="write it as grpc://"):
        TritonScorer(address)


WRONG = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        shape = {shape}
        return [
            pb_utils.InferenceResponse([
                pb_utils.Tensor("PROBABILITY", np.full((1, 1), {score}, np.float32)),
                pb_utils.Tensor("HEATMAP", np.zeros(shape, np.uint8)),
            ])
            for _ in requests
        ]
"""


@pytest.mark.parametrize(("shape", "score"), [("(1, 8, 8)", "0.5"), ("(1, 64, 64)", "float('nan')")])
def test_a_wrong_answer_is_no_score(tmp_path, probe_bundle, slice_of, shape, score):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    (models / "lymph_node" / "1" / "model.py").write_text(WRONG.format(shape=shape, score=score))
    config = models / "lymph_node" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: 64", "dims: -1"))
    with Server(models, free_ports()) as server, TritonScorer(server.address) as scorer:
        with pytest.raises(ServerError) as caught:
            scorer.score(slice_of(np.zeros((128, 128))), 60, 60)
        assert caught.value.reason is Reason.BAD_ANSWER


def test_lacking_model(tmp_path, probe_bundle):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED_STEPS)
    for file in (models / "lymph_node").rglob("*.pbtxt"):
        file.unlink()
    (models / "lymph_node" / "1").rmdir()
    (models / "lymph_node").rmdir()
    with pytest.raises(ServerError) as caught:
        Server(models, free_ports())
    assert caught.value.reason is Reason.MODEL_MISSING


def test_serve_leaves_nothing_behind(probe_bundle, tmp_path):
    ports = free_ports()
    command = [sys.executable, "-m", "lymphcad", "serve", "--bundle", str(probe_bundle.path)]
    options = ["--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*command, *map(str, options)], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stderr is not None
        assert "is ready at" in process.stderr.readline()
        memory = [path.name for path in Path("/dev/shm").glob(f"lymphcad-{process.pid}-*")]
        assert memory
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert not list(Path("/dev/shm").glob(f"lymphcad-{process.pid}-*"))
    assert not list(tmp_path.glob("lymphcad-*"))
    for port in (ports.grpc, ports.metrics):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port(tmp_path, probe_bundle):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = free_ports()
        with pytest.raises(CommandError, match="cannot be listened on"):
            Server(tmp_path, Ports(taken.getsockname()[1], free.metrics))


def test_a_changed_byte_is_found(tmp_path, probe_bundle):
    import shutil

    from lymphcad.bundle import Bundle

    copy = tmp_path / "copy"
    shutil.copytree(probe_bundle.path, copy)
    raw = bytearray((copy / "cam.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "cam.onnx").write_bytes(raw)
    with pytest.raises(BundleError, match=r"cam\.onnx .* does not match"):
        Bundle(copy)


def test_repositories_of_every_target(tmp_path, half_bundle, write_plan):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    plan = write_plan(half_bundle, tmp_path / "cnn.plan")
    for target in Target:
        models = tmp_path / target.value
        write_repository(half_bundle, models, target, plan=plan)
        for config in models.glob("*/config.pbtxt"):
            parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
            assert parsed.name == config.parent.name
            assert {tensor.name for tensor in (*parsed.input, *parsed.output)} <= {
                "IMAGE", "SPACING_MM", "CENTER", "CROP", "LOGITS", "MAPS", "PROBABILITY", "HEATMAP",
            }  # fmt: skip
    with pytest.raises(CommandError, match="TensorRT plan"):
        write_repository(half_bundle, tmp_path / "no-plan", Target.GPU)
    with pytest.raises(CommandError, match="leave --bf16 and --precision out"):
        write_repository(half_bundle, tmp_path / "bf16", Target.GPU, plan=plan, bf16=True)
    with pytest.raises(CommandError, match="not an empty folder"):
        write_repository(half_bundle, tmp_path / "gpu", Target.CPU)


def test_a_plan_goes_into_the_repository_with_its_sidecar(tmp_path, half_bundle, write_plan):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    plan = write_plan(half_bundle, tmp_path / "cnn.plan", max_batch=32)
    write_repository(half_bundle, tmp_path / "gpu", Target.GPU, plan)
    version = tmp_path / "gpu" / "cnn" / "1"
    assert check_plan(version / "model.plan", half_bundle.manifest).max_batch == 32
    assert sorted(file.name for file in version.iterdir()) == ["model.plan", "model.plan.json"]
    for file in (tmp_path / "gpu").glob("*/config.pbtxt"):
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        assert config.max_batch_size == 32  # Triton does not load a plan that takes less than it was told
        assert list(config.dynamic_batching.preferred_batch_size) in ([], [8, 16, 32])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"plan_sha256": "0" * 64}, "does not match the digest"),
        ({"onnx_sha256": "0" * 64}, "not that of the bundle half"),
        ({"library": "tensorrt_rtx"}, "Triton does not load"),
    ],
)
def test_a_plan_that_cannot_serve_the_bundle_is_refused(tmp_path, half_bundle, write_plan, fields, words):
    plan = write_plan(half_bundle, tmp_path / "cnn.plan", **fields)
    with pytest.raises(CommandError, match=words):
        write_repository(half_bundle, tmp_path / "gpu", Target.GPU, plan)
    assert not (tmp_path / "gpu").exists()


def test_the_precision_is_said(tmp_path, probe_bundle):
    """Left to itself OpenVINO takes bfloat16 wherever the CPU has it."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    def said(target: Target, model: str, *, bf16: bool) -> tuple[str, dict[str, str]]:
        models = tmp_path / f"{target.value}-{model}-{bf16}"
        write_repository(probe_bundle, models, target, bf16=bf16)
        config = text_format.Parse((models / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        return config.backend, {name: value.string_value for name, value in config.parameters.items()}

    for target, model in ((Target.EMBEDDED, "lymph_node"), (Target.EMBEDDED_STEPS, "cnn")):
        assert said(target, model, bf16=False)[1]["precision"] == "f32"
        assert said(target, model, bf16=True)[1]["precision"] == "bf16"
    assert said(Target.CPU, "cnn", bf16=False) == ("onnxruntime", {})
    backend, parameters = said(Target.CPU, "cnn", bf16=True)
    assert (backend, parameters["HINT_BF16"]) == ("openvino", "YES")
