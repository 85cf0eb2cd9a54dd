"""What runs a bundle's graphs: a GPU where there is one and ONNX Runtime uses it, and never the CPU under its name."""

from __future__ import annotations

import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from lymphcad_export.scores import CUDA, GPU, engines, open_graphs  # noqa: E402

from lymphcad.errors import CommandError  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_the_gpu_is_an_engine_where_onnxruntime_is_built_for_it_and_there_is_one(monkeypatch, built, there):
    providers = [*([CUDA] if built else []), "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert engines() == ["onnxruntime", "openvino", "edge", *([GPU] if built and there else [])]


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has the provider")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_be_used_is_said_and_the_cpu_does_not_answer_for_it(probe_bundle):
    with pytest.raises(CommandError, match=r"^ONNX Runtime [\d.]+ cannot use CUDAExecutionProvider here: .+ install"):
        open_graphs(probe_bundle.path, "fp32", GPU)


@pytest.mark.parametrize(("precision", "exact"), [("fp32", True), ("fp16", False)])
def test_float32_is_multiplied_exactly_on_a_gpu_and_float16_may_use_its_tensor_cores(
    probe_bundle, half_bundle, monkeypatch, precision, exact
):
    asked, real = [], onnxruntime.InferenceSession

    def spied(path, providers):
        asked.append(providers)
        return real(path, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", spied)
    with pytest.raises(CommandError, match=f"cannot use {CUDA}"):
        open_graphs((probe_bundle if precision == "fp32" else half_bundle).path, precision, GPU)
    assert asked[-1] == [(CUDA, {"use_tf32": "0"} if exact else {})]
