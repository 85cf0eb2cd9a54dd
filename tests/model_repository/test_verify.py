"""What `lymphcad verify` finds, and what a server does with files that are not what was proven."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from lymphcad_serve.verify import verify_bundle, versions_of
from lymphcad_serve.verify_served import verify_repository, verify_server
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2

from lymphcad.bundle import Bundle, sha256
from lymphcad.cli import main
from lymphcad.errors import BundleError, Reason, ServerError
from lymphcad.golden import GoldenError

TARGETS = [Target.EMBEDDED, Target.EMBEDDED_STEPS, Target.CPU]


def verify(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["verify", *map(str, arguments)])
    return int(ended.value.code or 0)


def exchanged(bundle, folder, graph, prefix):
    """Return a bundle that digests do not show to be wrong: its heatmap is another, and its manifest written anew."""
    shutil.copytree(bundle.path, folder)
    model = onnx.load(folder / graph)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name.startswith(prefix) and values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(values * 0.8, tensor.name))
    onnx.save(model, folder / graph)
    file = folder / "bundle.json"
    value = json.loads(file.read_text())
    value["files"][graph] = sha256(folder / graph)
    file.write_text(json.dumps(value))
    return Bundle(folder)


@pytest.fixture(scope="module")
def wrong_bundle(probe_bundle, tmp_path_factory):
    return exchanged(probe_bundle, tmp_path_factory.mktemp("wrong") / "bundle", "cam.onnx", "")


def test_a_merged_graph_that_is_another(probe_bundle, tmp_path, capsys):
    bundle = exchanged(probe_bundle, tmp_path / "bundle", "edge.fp32.onnx", "cam/")
    assert verify(bundle.path) == 4
    assert "does not compute what the bundle was proven with" in capsys.readouterr().err


def test_a_bundle_that_holds(probe_bundle, capsys):
    assert verify(probe_bundle.path) == 0
    said = capsys.readouterr().out
    assert f"{probe_bundle.label}: 6 files are as they were made." in said
    for who in (
        "fp32 in openvino",
        "fp32 in onnxruntime",
        "edge.fp32.onnx in openvino",
        "edge.fp32.onnx in onnxruntime",
    ):
        assert who in said
    assert "Research use only" in said
    assert verify(probe_bundle.path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["label"], found["files"]) == (probe_bundle.label, 6)
    assert found["versions"]["onnxruntime"][0] == found["versions"]["onnxruntime"][1]


def test_the_version_of_onnxruntime_is_known_where_another_distribution_brings_it(probe_bundle, monkeypatch):
    def without(name):
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("lymphcad_serve.verify.version", without)
    found = versions_of(probe_bundle.manifest)
    assert found["onnxruntime"] == (onnxruntime.__version__,) * 2
    manifest = probe_bundle.manifest.model_copy(update={"versions": {"no-such-package": "1"}})
    assert versions_of(manifest) == {"no-such-package": ("1", None)}


def test_graphs_that_compute_something_else(wrong_bundle, capsys):
    with pytest.raises(GoldenError, match="HEATMAP of the golden inputs is off by"):
        verify_bundle(wrong_bundle.path)
    assert verify(wrong_bundle.path) == 4
    assert "does not compute what the bundle was proven with" in capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS)
def test_a_repository(probe_bundle, tmp_path, target, capsys):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, target)
    found = verify_repository(models)
    assert found.label == probe_bundle.label
    assert len(found.golden) == {Target.EMBEDDED: 1, Target.EMBEDDED_STEPS: 3, Target.CPU: 0}[target]
    graphs = sorted(models.rglob("*.onnx"))
    assert len(graphs) == 3
    for file in graphs:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{file.name} in the repository .* is not of the bundle"):
            verify_repository(models)
        file.unlink()
        with pytest.raises(BundleError, match=f"lacks {file.name}"):
            verify_repository(models)
        file.write_bytes(whole)
    for file in models.rglob("model.py"):
        file.write_text(file.read_text() + "\n")
        assert verify(models) == 4
        assert "model.py in the repository" in capsys.readouterr().err
    assert verify(models, "--server", "grpc://127.0.0.1:1") == 2
    assert "go with a bundle" in capsys.readouterr().err
    (models / "lymph_node" / "config.pbtxt").write_text("{")
    with pytest.raises(BundleError, match="missing or damaged"):
        verify_repository(models)


def test_a_repository_with_a_plan(half_bundle, write_plan, tmp_path):
    models = tmp_path / "models"
    write_repository(half_bundle, models, Target.GPU, write_plan(half_bundle, tmp_path / "cnn.plan"))
    assert verify_repository(models).golden == ()
    plan = models / "cnn" / "1" / "model.plan"
    plan.write_bytes(plan.read_bytes() + b"1")
    assert verify(models) == 4
    plan.with_name("model.plan.json").unlink()
    with pytest.raises(BundleError, match=r"has no model\.plan\.json beside it"):
        verify_repository(models)


@pytest.mark.server
def test_a_server_scores_them(probe_server, probe_bundle, wrong_bundle, capsys):
    assert verify_server(probe_bundle, probe_server) == f"{probe_server} in fp32"
    assert verify(probe_bundle.path, "--server", probe_server) == 0
    assert f"{probe_server} in fp32" in capsys.readouterr().out
    with pytest.raises(ServerError) as caught:
        verify_server(wrong_bundle, probe_server)
    assert caught.value.reason is Reason.OTHER_BUNDLE


@pytest.mark.server
@pytest.mark.parametrize("target", [Target.EMBEDDED, Target.EMBEDDED_STEPS])
def test_a_server_is_not_ready_until_they_match(wrong_bundle, tmp_path, target):
    write_repository(wrong_bundle, tmp_path / "models", target)
    with pytest.raises(ServerError, match="HEATMAP of the golden inputs is off by") as caught:
        Server(tmp_path / "models", free_ports())
    assert caught.value.reason is Reason.SERVER_NOT_READY


@pytest.mark.server
def test_a_server_does_not_load_what_was_changed(probe_bundle, tmp_path):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    file = models / "lymph_node" / "1" / "cam.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ServerError, match=r"cam\.onnx was changed since the repository was written") as caught:
        Server(models, free_ports())
    assert caught.value.reason is Reason.SERVER_NOT_READY


@pytest.mark.server
def test_a_server_that_answers_something_else(probe_bundle, wrong_bundle, tmp_path):
    """Its own golden outputs are those of the wrong graphs, so it starts; the bundle's are not."""
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    folder = models / "lymph_node" / "1"
    shutil.copy(wrong_bundle.path / "cam.onnx", folder)
    with np.load(folder / "golden.npz") as stored:
        golden = dict(stored)
    np.savez(folder / "golden.npz", **golden | {"tolerance": np.full(3, 1e9)})
    config_file = models / "lymph_node" / "config.pbtxt"
    config = text_format.Parse(config_file.read_text(), model_config_pb2.ModelConfig())
    files = [file for file in folder.iterdir() if file.suffix != ".py"]
    config.parameters["sha256"].string_value = ",".join(f"{file.name}:{sha256(file)}" for file in files)
    config_file.write_text(text_format.MessageToString(config))
    with Server(models, free_ports()) as server, pytest.raises(GoldenError, match="HEATMAP of the golden inputs"):
        verify_server(probe_bundle, server.address)


def test_a_repository_of_a_signed_bundle(probe_bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["repository", str(probe_bundle.path), str(tmp_path / "models"), "--key", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "no Ed25519 public key" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
