from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

import lymphcad_export.parity  # noqa: E402
from lymphcad_export.bundle import Meaning, export_bundle  # noqa: E402
from lymphcad_export.half import halve_weights  # noqa: E402
from lymphcad_export.parity import (  # noqa: E402
    Agreement,
    ParityError,
    Scores,
    check,
    compare,
    crops_of,
    engine_scores,
    torch_scores,
)
from lymphcad_export.quantize import quantize_cnn  # noqa: E402
from lymphcad_train.cohort import load_windows  # noqa: E402
from lymphcad_train.graphs import Cam, Preprocess, Whole  # noqa: E402
from lymphcad_train.networks import CamNetwork  # noqa: E402
from lymphcad_train.run import read_record, read_split  # noqa: E402
from lymphcad_train.weights import load_weights  # noqa: E402

from lymphcad.bundle import GRAPHS, Bundle, sha256  # noqa: E402
from lymphcad.cli import main  # noqa: E402
from lymphcad.errors import CommandError  # noqa: E402

pytestmark = pytest.mark.torch
AGREEMENT = Agreement(0.0, 0.0, 0.0, flips=0, flips_beyond=0, auroc_difference=0.0)


def export(run, out, precision, *options):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--out", str(out), "--precision", precision, *options])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def reference(trained_run):
    """Return windows, split and torch's own scores of the whole cohort."""
    record, windows = read_record(trained_run), load_windows(trained_run / "windows.npz")
    network = CamNetwork("resnet50").eval()
    load_weights(network, trained_run / "weights.safetensors")
    cam = Cam(record.temperature, record.evidence_scale, (2, 2), 48)
    whole = Whole(Preprocess(**record.preprocess.model_dump()), network, cam)
    return SimpleNamespace(
        windows=windows, split=read_split(trained_run), scores=torch_scores(whole, windows, range(len(windows)))
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("precision", "probability", "heat"), [("fp32", 1e-4, 0.1), ("int8", 0.1, 12)])
def test_the_exported_graphs_say_what_torch_says(bundles, reference, engine, precision, probability, heat):
    found = engine_scores(bundles / precision, engine, reference.windows, range(64))
    np.testing.assert_allclose(found.probabilities, reference.scores.probabilities, atol=probability)
    assert np.abs(found.heatmaps.astype(int) - reference.scores.heatmaps).mean() < heat
    # the network does tell the crops apart, else any constant would agree
    assert np.ptp(reference.scores.probabilities) > 3 * probability
    assert reference.scores.heatmaps.max() > 100


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_bundle_carries_the_runs_meaning_and_the_proof(bundles, trained_run, precision):
    manifest, record = Bundle(bundles / precision).manifest, read_record(trained_run)
    assert (manifest.name, manifest.precision, manifest.map_size) == ("made", precision, (2, 2))
    assert manifest.preprocess == record.preprocess
    for name in ("architecture", "threshold", "temperature", "evidence_scale"):
        assert getattr(manifest, name) == getattr(record, name)
    assert record.training.items() <= manifest.training.items()
    assert manifest.metrics["parity"]["crops"] == 16
    for engine in ("onnxruntime", "openvino"):
        assert manifest.metrics["parity"][engine]["flips"] <= 1
    assert manifest.metrics["test"]["n"] == 8
    assert "size_baseline_auroc" in manifest.metrics["test"]
    assert manifest.training["export"]["command"] == (
        f"lymphcad export run --out {precision} --precision {precision} --name made"
    )
    assert str(trained_run.parent) not in (bundles / precision / "bundle.json").read_text()


def test_int8_is_a_quarter_of_the_size_and_keeps_the_maps_in_float(bundles):
    assert (bundles / "int8" / "cnn.onnx").stat().st_size < 0.27 * (bundles / "fp32" / "cnn.onnx").stat().st_size
    graph = onnx.load(bundles / "int8" / "cnn.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {one.name: one for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convolutions if node.input[1] not in weights]
    assert len(quantized) == len(convolutions) - 2  # the first, and the one that makes the maps
    assert convolutions[0].input[1] in weights
    assert all(weights[makers[node.input[1]].input[0]].data_type == onnx.TensorProto.INT8 for node in quantized)
    assert all(makers[node.input[0]].op_type == "DequantizeLinear" for node in quantized)
    head = makers["MAPS"]
    assert head.op_type == "Conv"
    assert weights[head.input[1]].data_type == onnx.TensorProto.FLOAT


def test_half_the_weights_say_nearly_the_same(bundles, reference, tmp_path):
    for name in GRAPHS:
        shutil.copy(bundles / "fp32" / name, tmp_path)
    halve_weights(tmp_path / "cnn.onnx")
    assert (tmp_path / "cnn.onnx").stat().st_size < 0.51 * (bundles / "fp32" / "cnn.onnx").stat().st_size
    for engine in ("onnxruntime", "openvino"):
        found = engine_scores(tmp_path, engine, reference.windows, range(64))
        np.testing.assert_allclose(found.probabilities, reference.scores.probabilities, atol=5e-3)
        assert (found.probabilities != reference.scores.probabilities).any()


def test_a_weight_too_large_for_half_is_refused(bundles, tmp_path):
    model = onnx.load(bundles / "fp32" / "cnn.onnx")
    tensor = next(one for one in model.graph.initializer if np.prod(one.dims) > 5000)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1e9, tensor.name))
    onnx.save(model, tmp_path / "cnn.onnx")
    with pytest.raises(CommandError, match="too large for float16"):
        halve_weights(tmp_path / "cnn.onnx")


def test_a_model_card_is_part_of_the_bundle(bundles):
    assert (bundles / "int8" / "model_card.md").read_text() == "# A card\n"
    assert "model_card.md" in Bundle(bundles / "int8").manifest.files
    assert "model_card.md" not in Bundle(bundles / "fp32").manifest.files


def test_int8_is_calibrated_on_training_crops_only(bundles, reference):
    calibration = Bundle(bundles / "int8").manifest.training["export"]["calibration"]
    train = np.flatnonzero(reference.split.parts == "train").tolist()
    crops = crops_of(bundles / "int8", reference.windows, train)
    assert calibration["crops"] == len(train) == 48
    assert calibration["sha256"] == hashlib.sha256(np.round(crops * 255).astype(np.uint8).tobytes()).hexdigest()


def test_exporting_twice_gives_the_same_digests(bundles, reference, tmp_path):
    """Both bundles come of an export of their own; what one has in float32 becomes what the other has in int8."""
    for name in ("preprocess.onnx", "cam.onnx"):
        assert sha256(bundles / "int8" / name) == sha256(bundles / "fp32" / name)
    shutil.copy(bundles / "fp32" / "cnn.onnx", tmp_path)
    train = np.flatnonzero(reference.split.parts == "train").tolist()
    quantize_cnn(tmp_path / "cnn.onnx", crops_of(bundles / "fp32", reference.windows, train))
    assert sha256(tmp_path / "cnn.onnx") == sha256(bundles / "int8" / "cnn.onnx")


def test_graphs_that_differ_from_torch_are_not_published(bundles, trained_run, tmp_path, monkeypatch, capsys):
    def copy_graphs(folder, *_):
        for name in GRAPHS:
            shutil.copy(bundles / "fp32" / name, folder)

    monkeypatch.setattr("lymphcad_export.bundle.write_graphs", copy_graphs)  # the same ones, without tracing
    monkeypatch.setattr(lymphcad_export.parity, "MAX_AUROC_DIFFERENCE", -1.0)
    assert export(trained_run, tmp_path / "out", "int8") == 4
    assert "too far from torch, nothing was published" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_nothing_that_looks_like_a_bundle(tmp_path, monkeypatch, brightness, window):
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # a real kill cleans nothing up
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tmp_path / "out", brightness, window, Meaning("a", "brightness", 0.5, 1.0, 1.0), killed)
    assert list(tmp_path.rglob("cnn.onnx"))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("bundle.json"))


@pytest.mark.parametrize(
    ("precision", "agreement", "refused"),
    [
        ("fp32", replace(AGREEMENT, probability_max=0.0009), None),
        ("fp32", replace(AGREEMENT, probability_max=0.0011), "largest difference of a probability is 0.0011"),
        ("fp32", replace(AGREEMENT, probability_max=float("nan")), "is nan"),
        ("fp16", replace(AGREEMENT, probability_max=0.0049), None),
        ("fp16", replace(AGREEMENT, probability_max=0.0051), "largest difference of a probability is 0.0051"),
        ("int8", replace(AGREEMENT, probability_max=0.2, flips=2, auroc_difference=-0.0049), None),
        ("int8", replace(AGREEMENT, flips=3), "changed calls among 400 crops is 3, and at most 2"),
        ("int8", replace(AGREEMENT, auroc_difference=-0.0051), "change of the AUROC is 0.0051"),
    ],
)
def test_the_limits(precision, agreement, refused):
    if refused is None:
        check("an engine", agreement, 400, precision)
    else:
        with pytest.raises(ParityError, match=refused):
            check("an engine", agreement, 400, precision)


def test_one_changed_call_is_allowed_on_a_small_set():
    check("an engine", replace(AGREEMENT, flips=1), 10, "int8")
    with pytest.raises(ParityError):
        check("an engine", replace(AGREEMENT, flips=2), 10, "int8")


def test_agreement_by_hand():
    heat = np.zeros((5, 2, 2), np.uint8)
    reference = Scores(np.array([0.1, 0.4, 0.6, 0.9, 0.501]), heat)
    found = Scores(np.array([0.1, 0.62, 0.6, 0.8, 0.499]), heat + np.uint8(3))
    agreement = compare(found, reference, np.array([0, 0, 1, 1, 1]), threshold=0.5)
    assert agreement.probability_max == pytest.approx(0.22)
    assert agreement.probability_mean == pytest.approx(0.322 / 5)
    assert agreement.heatmap_mean == 3
    assert (agreement.flips, agreement.flips_beyond) == (2, 1)
    assert agreement.auroc_difference == pytest.approx(-2 / 6)


def test_runs_that_cannot_be_exported_are_refused(trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    assert export(run, tmp_path / "out", "fp32", "--name", "a name") == 2
    assert "cannot be a bundle's name" in capsys.readouterr().err
    assert export(run, tmp_path / "out", "fp32", "--card", str(tmp_path / "none.md")) == 2
    assert "there is no model card" in capsys.readouterr().err
    with (run / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00\x01")
    assert export(run, tmp_path / "out", "fp32") == 2
    assert "is not the file that run.json names" in capsys.readouterr().err
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"threshold": "high"}))
    assert export(run, tmp_path / "out", "fp32") == 2
    assert "damaged or of another version" in capsys.readouterr().err
    (run / "run.json").unlink()
    assert export(run, tmp_path / "out", "fp32") == 2
    assert "no complete run" in capsys.readouterr().err
    assert export(trained_run, run, "fp32") == 2
    assert "exists: name a new folder" in capsys.readouterr().err


def test_a_mirrored_network_is_exported_whole(reference, trained_run, tmp_path):
    from lymphcad_export.onnx_graphs import write_graphs
    from lymphcad_train.networks import as_served

    torch.manual_seed(0)
    network = as_served(CamNetwork("tf_efficientnet_lite0"), mirrored=True).eval()
    network.network.bias.data = torch.tensor([0.3, -0.2])
    preprocess, cam = Preprocess(**read_record(trained_run).preprocess.model_dump()), Cam(1.0, 1.0, (2, 2), 48)
    rows = list(range(12))
    expected = torch_scores(Whole(preprocess, network, cam), reference.windows, rows)
    write_graphs(tmp_path, preprocess, network, cam, 48)
    for engine in ("onnxruntime", "openvino"):
        found = engine_scores(tmp_path, engine, reference.windows, rows)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    quantize_cnn(tmp_path / "cnn.onnx", crops_of(tmp_path, reference.windows, rows))
    graph = onnx.load(tmp_path / "cnn.onnx").graph
    weights = {one.name for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[1] in weights for node in (convolutions[0], convolutions[1], convolutions[-1])] == [
        True,
        False,
        True,
    ]
    # What stands behind a convolution in eight bits cuts its scale off; only the first one's, in float32, is left.
    assert [node.op_type for node in graph.node].count("Clip") == 1
    found = engine_scores(tmp_path, "onnxruntime", reference.windows, rows).probabilities
    logits = [np.log(p / (1 - p)) for p in (found, expected.probabilities)]
    assert logits[0].mean() == pytest.approx(logits[1].mean(), abs=1e-4)  # rounding's mean is taken out of the bias
