from __future__ import annotations

import hashlib
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

import lymphcad_export.parity  # noqa: E402
from lymphcad_export.bundle import Meaning, export_bundle  # noqa: E402
from lymphcad_export.half import half_by_cost, to_half  # noqa: E402
from lymphcad_export.quantize import Quantizer  # noqa: E402
from lymphcad_export.scores import EDGE, crops_of, engine_scores, open_graphs, torch_scores  # noqa: E402
from lymphcad_train.cohort import load_windows  # noqa: E402
from lymphcad_train.graphs import Cam, Preprocess, Whole  # noqa: E402
from lymphcad_train.networks import CamNetwork  # noqa: E402
from lymphcad_train.run import read_record, read_split  # noqa: E402
from lymphcad_train.weights import load_weights  # noqa: E402

from lymphcad.bundle import Bundle, sha256  # noqa: E402
from lymphcad.cli import main  # noqa: E402
from lymphcad.errors import CommandError  # noqa: E402
from lymphcad.golden import read_golden  # noqa: E402

pytestmark = pytest.mark.torch
ENGINES = ["onnxruntime", "openvino", "edge"]
FILES = {"preprocess.onnx", "cam.onnx", "golden.npz", "parity.json", "model_card.md", "sbom.cdx.json", "LICENSE"}


def export(run, out, *options):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--out", str(out), *map(str, options)])
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


@pytest.fixture(scope="module")
def training_crops(exported, reference):
    rows = np.flatnonzero(reference.split.parts == "train").tolist()
    return crops_of(exported, reference.windows, rows)


@pytest.fixture
def quick(exported, monkeypatch):
    """Let an export take the graphs of the exported bundle in place of tracing the network again."""

    def copy_graphs(folder, *_):
        for name in ("preprocess.onnx", "cnn.fp32.onnx", "cam.onnx"):
            shutil.copy(exported / name, folder)

    monkeypatch.setattr("lymphcad_export.bundle.write_graphs", copy_graphs)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("precision", "probability", "heat"), [("fp32", 1e-4, 0.1), ("fp16", 0.01, 1), ("int8", 0.1, 12)]
)
def test_the_exported_graphs_say_what_torch_says(exported, reference, engine, precision, probability, heat):
    found = engine_scores(exported, precision, engine, reference.windows, range(64))
    np.testing.assert_allclose(found.probabilities, reference.scores.probabilities, atol=probability)
    assert np.abs(found.heatmaps.astype(int) - reference.scores.heatmaps).mean() < heat
    # the network does tell the crops apart, else any constant would agree
    assert np.ptp(reference.scores.probabilities) > 3 * probability
    assert reference.scores.heatmaps.max() > 100
    if precision != "fp32":
        assert (found.probabilities != reference.scores.probabilities).any()


def test_the_bundle_carries_the_runs_meaning_and_its_proofs(exported, trained_run):
    bundle, record = Bundle(exported), read_record(trained_run)
    manifest = bundle.manifest
    assert (manifest.name, manifest.precisions, manifest.map_size) == ("made", ("int8", "fp16", "fp32"), (2, 2))
    assert manifest.preferred == "int8"
    graphs = {f"{graph}.{precision}.onnx" for graph in ("cnn", "edge") for precision in manifest.precisions}
    assert set(manifest.files) == FILES | graphs
    assert manifest.preprocess == record.preprocess
    for name in ("architecture", "threshold", "temperature", "evidence_scale"):
        assert getattr(manifest, name) == getattr(record, name)
    assert record.training.items() <= manifest.training.items()
    assert (manifest.metrics["test"]["n"], manifest.metrics["precision"]) == (8, "int8")
    assert "size_baseline_auroc" in manifest.metrics["test"]
    command = "lymphcad export run --out bundle --precision int8,fp16,fp32 --name made --card card.md"
    proof = json.loads((exported / "parity.json").read_text())
    assert proof["command"] == manifest.training["export"]["command"] == command
    assert {(one["file"], one["engine"]) for one in proof["artefacts"]} == {
        (f"{'edge' if engine == EDGE else 'cnn'}.{precision}.onnx", engine)
        for precision in manifest.precisions
        for engine in ENGINES
    }
    for one in proof["artefacts"]:
        assert one["crops"] == 16
        assert one["flips"] <= proof["limits"][one["precision"]]["flipped_share"] * 16
        assert one["heatmap_correlation"] > 0.9
    assert {"sha256", "crops", "part", "cohort_sha256"} == set(proof["calibration"])
    assert (exported / "LICENSE").read_text() == (Path(__file__).parents[2] / "LICENSE").read_text()
    for name in ("bundle.json", "parity.json", "model_card.md", "sbom.cdx.json"):
        assert str(trained_run.parent) not in (exported / name).read_text()
    card = (exported / "model_card.md").read_text()
    assert card.startswith("# A card\n")
    assert f"    {command}\n" in card
    assert card.count("| edge.int8.onnx |") == 1


def test_what_made_it_is_listed(exported):
    listed = json.loads((exported / "sbom.cdx.json").read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    versions = {part["name"]: part["version"] for part in listed["components"]}
    for name, version in Bundle(exported).manifest.versions.items():
        assert versions[name] == version
    assert "file:" not in (exported / "sbom.cdx.json").read_text()


def test_golden_outputs_are_those_of_each_precision(exported):
    bundle = Bundle(exported)
    for precision in bundle.manifest.precisions:
        golden = read_golden(bundle, precision)
        inputs = {name: golden[name] for name in ("IMAGE", "SPACING_MM", "CENTER")}
        found = open_graphs(exported, precision, "onnxruntime")(inputs)
        tolerance = bundle.manifest.golden[precision].probability
        np.testing.assert_allclose(found["PROBABILITY"], golden["PROBABILITY"], atol=tolerance)
        np.testing.assert_allclose(found["CROP"], golden["CROP"], atol=1e-5)
    logits = [read_golden(bundle, precision)["LOGITS"] for precision in bundle.manifest.precisions]
    assert not np.array_equal(logits[0], logits[2])


def test_sixteen_bits_are_strongly_typed(exported):
    model = onnx.load(exported / "cnn.fp16.onnx")
    assert (exported / "cnn.fp16.onnx").stat().st_size < 0.51 * (exported / "cnn.fp32.onnx").stat().st_size
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert types == dict.fromkeys(("CROP", "LOGITS", "MAPS"), onnx.TensorProto.FLOAT)
    weights = {one.name: one.data_type for one in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {weights[node.input[1]] for node in convolutions} == {onnx.TensorProto.FLOAT16}


def test_what_costs_most_in_sixteen_bits_can_stay_in_float32(exported, training_crops, tmp_path):
    source = exported / "cnn.fp32.onnx"
    groups = half_by_cost(source, training_crops)
    names = [node.name for node in onnx.load(source).graph.node]
    assert sorted(name for group in groups for name in group) == sorted(names)
    to_half(source, tmp_path / "half.onnx", training_crops, groups[0])
    model = onnx.load(tmp_path / "half.onnx")
    weights = {one.name: one.data_type for one in model.graph.initializer}
    types = {node.name: weights.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    kept = set(types) & set(groups[0])
    assert {types[name] for name in kept} <= {onnx.TensorProto.FLOAT}
    assert {types[name] for name in set(types) - kept} == {onnx.TensorProto.FLOAT16}

    def off(path):
        session = onnxruntime.InferenceSession(path)
        return np.std(session.run(["LOGITS"], {"CROP": training_crops})[0] - exact)

    exact = onnxruntime.InferenceSession(source).run(["LOGITS"], {"CROP": training_crops})[0]
    to_half(source, tmp_path / "least.onnx", training_crops, groups[-1])
    assert off(tmp_path / "half.onnx") < off(tmp_path / "least.onnx")


def test_int8_is_a_quarter_of_the_size_and_keeps_the_maps_in_float(exported):
    assert (exported / "cnn.int8.onnx").stat().st_size < 0.27 * (exported / "cnn.fp32.onnx").stat().st_size
    graph = onnx.load(exported / "cnn.int8.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {one.name: one for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convolutions if node.input[1] not in weights]
    kept = json.loads((exported / "parity.json").read_text())["kept"]["int8"]["convolutions_in_float32"]
    assert len(quantized) == len(convolutions) - 2 - len(kept)  # the first, and the one that makes the maps
    assert convolutions[0].input[1] in weights
    assert all(weights[makers[node.input[1]].input[0]].data_type == onnx.TensorProto.INT8 for node in quantized)
    assert all(makers[node.input[0]].op_type == "DequantizeLinear" for node in quantized)
    head = makers["MAPS"]
    assert head.op_type == "Conv"
    assert weights[head.input[1]].data_type == onnx.TensorProto.FLOAT


def test_int8_is_calibrated_on_training_crops_only(exported, training_crops):
    calibration = Bundle(exported).manifest.training["export"]["calibration"]
    assert (calibration["crops"], calibration["part"]) == (48, "train")
    assert (
        calibration["sha256"] == hashlib.sha256(np.round(training_crops * 255).astype(np.uint8).tobytes()).hexdigest()
    )


def test_exporting_twice_gives_the_same_digests(exported, trained_run, training_crops, tmp_path):
    """Traced anew, and from there: float16, int8, and the merged graph."""
    assert export(trained_run, tmp_path / "again", "--precision", "fp32,fp16,int8") == 0
    for name in sorted(set(Bundle(exported).manifest.files) - {"model_card.md", "parity.json"}):
        assert sha256(tmp_path / "again" / name) == sha256(exported / name), name


def test_the_costliest_convolutions_stay_in_float_until_the_proof_holds(
    exported, trained_run, quick, tmp_path, monkeypatch, capsys
):
    """Where int8 as a whole flips calls, which here a limit that nothing but float32 holds makes sure of."""
    limits = lymphcad_export.parity.LIMITS
    moved = json.loads((exported / "parity.json").read_text())["artefacts"]
    whole = min(one["probability_max"] for one in moved if one["precision"] == "int8")
    monkeypatch.setitem(limits, "int8", replace(limits["int8"], probability=0.95 * whole, flipped_share=1.0, auroc=1.0))
    assert export(trained_run, tmp_path / "out", "--precision", "int8") == 0
    assert "costliest of 52 convolutions in float32" in capsys.readouterr().err
    proof = json.loads((tmp_path / "out" / "parity.json").read_text())
    kept = proof["kept"]["int8"]
    assert (
        1 <= len(kept["convolutions_in_float32"]) <= 0.6 * kept["of"]
    )  # half of the groups, which are of unequal size
    assert all(one["probability_max"] <= 0.95 * whole for one in proof["artefacts"])
    graph = onnx.load(tmp_path / "out" / "cnn.int8.onnx").graph
    constants = {one.name for one in graph.initializer}
    in_float = {node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in constants}
    assert set(kept["convolutions_in_float32"]) < in_float
    assert len(in_float) == len(kept["convolutions_in_float32"]) + 2


def test_the_costliest_convolutions_are_found(tmp_path):
    """Between the first two of three stands a channel of large values that leaves the others few steps."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d
    parts = [conv(1, 8, 3), conv(8, 8, 3), conv(8, 8, 3), conv(8, 8, 3), conv(8, 2, 1)]
    with torch.no_grad():
        parts[2].weight[:, 3] /= 2000
        parts[1].weight[3] *= 2000

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = torch.nn.Sequential(*parts)

        def forward(self, crop):
            maps = self.parts(crop)
            return maps.mean(dim=(2, 3)), maps

    program = torch.onnx.export(
        Network().eval(), (torch.rand(2, 1, 32, 32),), input_names=["CROP"], output_names=["LOGITS", "MAPS"],
        dynamic_shapes={"crop": {0: torch.export.Dim("B", min=1)}}, dynamo=True, verbose=False,
    )  # fmt: skip
    program.save(tmp_path / "cnn.onnx")
    crops = torch.rand(16, 1, 32, 32).numpy()
    quantizer = Quantizer(tmp_path / "cnn.onnx", crops)
    assert len(quantizer.convolutions) == 3
    costliest = [name for group in quantizer.by_cost()[:2] for name in group]
    assert set(costliest) == set(quantizer.convolutions[:2])

    def logits(path):
        return onnxruntime.InferenceSession(path).run(["LOGITS"], {"CROP": crops})[0]

    exact = logits(tmp_path / "cnn.onnx")
    quantizer.write(tmp_path / "all.onnx")
    quantizer.write(tmp_path / "kept.onnx", costliest)
    off = [np.std(logits(tmp_path / name) - exact) for name in ("all.onnx", "kept.onnx")]
    assert off[1] < 0.7 * off[0]


def test_graphs_that_differ_from_torch_are_not_published(trained_run, quick, tmp_path, monkeypatch, capsys):
    limits = lymphcad_export.parity.LIMITS
    monkeypatch.setitem(limits, "fp16", replace(limits["fp16"], probability=1e-9))
    assert export(trained_run, tmp_path / "out", "--precision", "fp16") == 4
    said = capsys.readouterr().err
    assert "costliest nodes in float32" in said
    assert "too far from torch, nothing was published" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.refused"]
    proof = json.loads((tmp_path / "out.refused" / "parity.json").read_text())
    assert all("fp16 in " in words for words in proof["broken"])
    for one in proof["images"]:
        assert one["image"].endswith(".png")
        assert one["torch"] != one["artefact"] or not one["call_changes"]
        assert (tmp_path / "out.refused" / one["picture"]).is_file()
    assert export(trained_run, tmp_path / "out", "--precision", "fp16") == 2
    assert "out.refused' exists" in capsys.readouterr().err


def test_images_whose_calls_change_are_named(trained_run, quick, tmp_path, monkeypatch, capsys):
    def other_side(*arguments):
        scores = engine_scores(*arguments)
        probabilities = scores.probabilities.copy()
        probabilities[3] = 1 - probabilities[3]
        return replace(scores, probabilities=probabilities)

    monkeypatch.setattr("lymphcad_export.proof.engine_scores", other_side)
    assert export(trained_run, tmp_path / "out", "--precision", "fp32") == 4
    split = read_split(trained_run)
    name = str(split.images[np.flatnonzero(split.parts != "train")[3]])
    assert f"The calls of {name} change." in capsys.readouterr().err
    images = json.loads((tmp_path / "out.refused" / "parity.json").read_text())["images"]
    changed = [one for one in images if one["call_changes"]]
    assert {one["image"] for one in changed} == {name}
    assert changed[0]["torch"] == pytest.approx(1 - changed[0]["artefact"], abs=1e-3)


def test_a_kill_leaves_nothing_that_looks_like_a_bundle(tmp_path, monkeypatch, brightness, window):
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # a real kill cleans nothing up
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tmp_path / "out", brightness, window, Meaning("a", "brightness", 0.5, 1.0, 1.0), killed)
    assert list(tmp_path.rglob("cnn.fp32.onnx"))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("bundle.json"))


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, brightness, window):
    """No file may grow beyond 1,000 bytes, which is refused as a full disk is."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    meaning = Meaning("a", "brightness", 0.5, 1.0, 1.0)
    (tmp_path / "there").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(CommandError, match=r"could not be written \(File too large\): make room"):
            export_bundle(tmp_path / "there" / "out", brightness, window, meaning)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list((tmp_path / "there").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"cannot be made \(Not a directory\)|cannot be made \(File exists\)"):
        export_bundle(tmp_path / "file" / "out", brightness, window, meaning)


def test_another_cohort_calibrates_only_where_it_is_said(trained_run, made_cohort, quick, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    table = tmp_path / "other.csv"
    lines = made_cohort.read_text().splitlines()
    rows = [line.replace(",p", ",q") for line in lines[1:21]]
    table.write_text("\n".join([lines[0], *(f"{made_cohort.parent}/{row}" for row in rows)]) + "\n")
    assert export(run, tmp_path / "out", "--precision", "int8", "--calibrate-on", table) == 0
    calibration = json.loads((tmp_path / "out" / "parity.json").read_text())["calibration"]
    assert (calibration["crops"], calibration["cohort_sha256"]) == (20, sha256(table))
    for name in ("windows.npz", "split.csv"):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept + b"\n")
        assert export(run, tmp_path / "no", "--precision", "int8") == 2
        assert f"{name} in '{run}' is not of the cohort that the network was trained on" in capsys.readouterr().err
        (run / name).write_bytes(kept)


def test_runs_that_cannot_be_exported_are_refused(trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    weights = run / "weights.safetensors"
    for options, expected in (
        (("--name", "a name"), "cannot be a bundle's name"),
        (("--card", tmp_path / "none.md"), "there is no file"),
        (("--license", tmp_path / "none"), "there is no file"),
        (("--precision", "int4"), "fp32, fp16 and int8 are known"),
        (("--precision", "int8,int8"), "each once"),
        (("--sign", weights), "no Ed25519 private key"),
        (("--calibrate-on", tmp_path / "none.csv"), "the table cannot be opened"),
    ):
        assert export(run, tmp_path / "out", *options) == 2
        assert expected in capsys.readouterr().err
    whole = weights.read_bytes()
    network = CamNetwork("tf_efficientnet_lite0")
    from lymphcad_train.weights import save_weights

    save_weights(network, tmp_path / "other.safetensors")
    torch.save(network.state_dict(), tmp_path / "pickle")
    for contents, expected in (
        (whole[:-2] + b"\x00\x01", "is not the file that run.json names"),
        (whole[: len(whole) // 2], "is cut short or damaged"),
        ((tmp_path / "other.safetensors").read_bytes(), "is of another network than resnet50"),
        ((tmp_path / "pickle").read_bytes(), "is a pickle"),
    ):
        weights.write_bytes(contents)
        assert export(run, tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert "weights.safetensors" in said
        assert expected in said
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"threshold": "high"}))
    assert export(run, tmp_path / "out") == 2
    assert "damaged or of another version" in capsys.readouterr().err
    (run / "run.json").unlink()
    assert export(run, tmp_path / "out") == 2
    assert "no complete run" in capsys.readouterr().err
    assert export(trained_run, run) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
        found = engine_scores(tmp_path, "fp32", engine, reference.windows, rows)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    quantizer = Quantizer(tmp_path / "cnn.fp32.onnx", crops_of(tmp_path, reference.windows, rows))
    quantizer.write(tmp_path / "cnn.int8.onnx")
    graph = onnx.load(tmp_path / "cnn.int8.onnx").graph
    weights = {one.name for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.input[1] in weights for node in (convolutions[0], convolutions[1], convolutions[-1])] == [
        True,
        False,
        True,
    ]
    # What stands behind a convolution in eight bits cuts its scale off; only the first one's, in float32, is left.
    assert [node.op_type for node in graph.node].count("Clip") == 1
    found = engine_scores(tmp_path, "int8", "onnxruntime", reference.windows, rows).probabilities
    logits = [np.log(p / (1 - p)) for p in (found, expected.probabilities)]
    assert logits[0].mean() == pytest.approx(logits[1].mean(), abs=1e-4)  # rounding's mean is taken out of the bias
