"""TensorRT-RTX really builds here, without a GPU; TensorRT itself cannot be loaded, and no engine is executed."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX: pip install 'lymphcad[rtx]'")

import lymphcad_export.plan.builders  # noqa: E402
import onnxruntime  # noqa: E402
from lymphcad_export.plan.build import build_engine  # noqa: E402
from lymphcad_export.plan.builders import ahead  # noqa: E402
from lymphcad_export.plan.comparison import compare  # noqa: E402
from lymphcad_export.plan.execute import run_engine  # noqa: E402
from lymphcad_export.plan.gpu import Gpu  # noqa: E402
from lymphcad_export.plan.publish import write_engines  # noqa: E402
from lymphcad_train.networks import ARCHITECTURES  # noqa: E402

from lymphcad.bundle import Bundle  # noqa: E402
from lymphcad.cli import main  # noqa: E402
from lymphcad.errors import CommandError  # noqa: E402
from lymphcad.golden import GoldenError  # noqa: E402
from lymphcad.plan import Comparison, Machine, check_plan, sidecar_of  # noqa: E402
from lymphcad.tensorrt_library import load  # noqa: E402

pytestmark = pytest.mark.torch
SIZE = 48


@pytest.fixture(scope="session")
def bundle(exported) -> Bundle:
    return Bundle(exported)


def plan(bundle, out, *options):
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(bundle.path), "--out", str(out), *options])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_becomes_an_engine_in_half_precision(network_bundles, architecture):
    trained = Bundle(network_bundles[architecture])
    onnx_file, size = trained.cnn("fp16"), trained.manifest.preprocess.size
    library, _ = load("tensorrt_rtx")
    engine = build_engine(library, onnx_file.read_bytes(), size, 64, capability="sm86")
    assert engine.profile == ((1, 1, size, size), (16, 1, size, size), (64, 1, size, size))
    assert engine.timing_cache is None
    # The weights are most of an engine; in float32 they would be twice as much.
    assert 0.9 < len(engine.content) / onnx_file.stat().st_size < 1.8


def test_engines_are_written_with_what_they_are_for(bundle, tmp_path, capsys):
    out = tmp_path / "new" / "engines"
    assert plan(bundle, out, "--max-batch", "8", "--rtx", "sm86, SM120,sm86") == 0
    names = ["cnn.sm120.engine", "cnn.sm120.engine.json", "cnn.sm86.engine", "cnn.sm86.engine.json"]
    assert sorted(file.name for file in out.iterdir()) == names
    assert [file.name for file in out.parent.iterdir()] == ["engines"]
    said = capsys.readouterr().err
    assert said.count("never executed") == 2
    version = load("tensorrt_rtx")[1]
    for name, capability in (("cnn.sm86.engine", "8.6"), ("cnn.sm120.engine", "12.0")):
        sidecar = check_plan(out / name, bundle.manifest)
        assert (sidecar.library, sidecar.version, sidecar.compute_capability) == ("tensorrt_rtx", version, capability)
        assert (sidecar.gpu, sidecar.driver, sidecar.comparison) == (None, None, None)
        assert sidecar.max_batch == 8
        assert [shape[0] for _, shape in sidecar.profile] == [1, 8, 8]
        assert sidecar.flags == ("TF32",)
        assert (sidecar.bundle, sidecar.bundle_sha256) == (bundle.label, bundle.digest)
        assert sidecar.onnx_sha256 == bundle.manifest.files["cnn.fp16.onnx"]
        assert sidecar.command == "lymphcad plan bundle --out engines --max-batch 8 --rtx sm86,sm120"
        assert str(tmp_path) not in sidecar_of(out / name).read_text()
    assert (out / names[0]).read_bytes() != (out / names[2]).read_bytes()


def test_an_empty_folder_is_filled_and_another_one_left_alone(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert plan(bundle, out, "--rtx", "sm89") == 0
    before = sorted(out.iterdir())
    assert plan(bundle, out, "--rtx", "sm86") == 2
    assert "is not an empty folder: name a new one" in capsys.readouterr().err
    assert sorted(out.iterdir()) == before
    assert plan(bundle, out / before[0].name / "below", "--rtx", "sm86") == 2
    assert "cannot be written (File exists): name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("targets", ["sm90", "sm86,sm90", "none", "current", ""])
def test_a_capability_that_is_not_built_for_is_said(bundle, tmp_path, capsys, targets):
    assert plan(bundle, tmp_path / "out", "--rtx", targets) == 2
    said = capsys.readouterr().err
    assert f"builds no engine for '{targets.split(',')[-1]}': choose among sm75, sm80, sm86, sm89, sm120" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_read_is_said_in_one_sentence(bundle, capfd):
    library, _ = load("tensorrt_rtx")
    graph = onnx.load(bundle.cnn("fp16"))
    next(node for node in graph.graph.node if node.op_type == "Conv").op_type = "NoSuchOperator"
    for content in (b"no graph", graph.SerializeToString()):
        with pytest.raises(CommandError, match=r"graph cannot be read \(.+\): export the bundle again$") as caught:
            build_engine(library, content, SIZE, 1, capability="sm86")
        assert "\n" not in str(caught.value)
    with pytest.raises(CommandError, match=r"no engine could be built \(.*CROP.*\): "):
        build_engine(library, (bundle.cnn("fp16")).read_bytes(), SIZE + 1, 1, capability="sm86")
    assert capfd.readouterr() == ("", "")  # the library's own log is kept to itself


def session(model):
    """Return an engine that can be asked, for TensorRT's own cannot be here: ONNX Runtime on a given graph."""
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda crops: dict(zip(("LOGITS", "MAPS"), runtime.run(["LOGITS", "MAPS"], {"CROP": crops}), strict=True))


def scaled(bundle, factor, outputs=("LOGITS", "MAPS")):
    """Return an engine whose outputs are too large by a factor."""
    model = onnx.load(bundle.cnn("fp16"))
    for name in outputs:
        node = next(node for node in model.graph.node if name in node.output)
        node.output[list(node.output).index(name)] = f"{name}_before"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), f"{name}_factor"))
        model.graph.node.append(onnx.helper.make_node("Mul", [f"{name}_before", f"{name}_factor"], [name]))
    return session(model)


def test_an_engine_within_the_tolerances_is_accepted(bundle):
    tolerance = bundle.manifest.golden["fp16"]
    for run in (session(onnx.load(bundle.cnn("fp32"))), scaled(bundle, 1.01)):
        found = compare(run, bundle, (1, 16, 40))
        assert found.crops == 4 * (1 + 16 + 40)
        assert 0 <= found.probability_max < tolerance.probability
        assert 0 <= found.heatmap_mean < tolerance.heatmap


@pytest.mark.parametrize(
    ("factor", "outputs", "words"),
    [
        (np.nan, ("LOGITS", "MAPS"), "in a batch of 1 does not compute .*: LOGITS of the golden inputs is off by nan"),
        (np.inf, ("LOGITS", "MAPS"), "LOGITS of the golden inputs is off by inf"),
        (1.2, ("LOGITS",), "LOGITS of the golden inputs is off by"),
        (1.2, ("MAPS",), "MAPS of the golden inputs is off by"),
    ],
)
def test_a_wrong_engine_is_not_published(bundle, tmp_path, monkeypatch, capsys, factor, outputs, words):
    wrong = scaled(bundle, factor, outputs)
    real = lymphcad_export.plan.builders.ahead

    def compared(targets):
        return replace(real(targets), compare=lambda _: compare(wrong, bundle, (1, 16)))

    monkeypatch.setattr(lymphcad_export.plan.builders, "ahead", compared)
    assert plan(bundle, tmp_path / "out", "--rtx", "sm86") == 4
    said = capsys.readouterr().err
    assert re.search(words, said)
    assert said.endswith("nothing was published: try another version of TensorRT\n")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_goes_wrong_in_one_place_of_one_batch_is_not_published(bundle):
    right = session(onnx.load(bundle.cnn("fp16")))

    def wrong(crops):
        found = right(crops)
        if len(crops) == 40:
            found["LOGITS"][37] = 0
        return found

    compare(wrong, bundle, (1, 16))
    with pytest.raises(GoldenError, match="in a batch of 40 does not compute what the bundle was proven with: LOGITS"):
        compare(wrong, bundle, (1, 16, 40))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorRT-RTX says that it makes nothing of a timing cache
def test_a_plan_is_written_with_its_timing_cache_which_the_next_build_reads(bundle, tmp_path):
    """The lines that run on a machine with a GPU, with TensorRT-RTX as the library and a GPU that is not here."""
    gpu = Gpu("NVIDIA L4", "8.9", "570.1")
    builder = replace(
        ahead(()),
        targets=(None,),
        gpu=gpu,
        compare=lambda _: Comparison(crops=4, probability_max=0.001, heatmap_mean=0.1),
    )
    first, second = tmp_path / "first", tmp_path / "second"
    write_engines(bundle, first, builder, 4, "command")
    made = write_engines(bundle, second, builder, 4, "command", first / "cnn.timing")
    assert list(made) == ["cnn.plan"]
    assert sorted(file.name for file in second.iterdir()) == ["cnn.plan", "cnn.plan.json", "cnn.timing"]
    sidecar = check_plan(
        second / "cnn.plan", bundle.manifest, Machine(builder.version, gpu.name, gpu.compute_capability)
    )
    assert (sidecar.gpu, sidecar.compute_capability, sidecar.driver) == (gpu.name, "8.9", "570.1")
    assert sidecar.comparison == Comparison(crops=4, probability_max=0.001, heatmap_mean=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_engine_that_cannot_be_loaded_is_said_in_one_sentence(bundle):
    library, _ = load("tensorrt_rtx")
    engine = build_engine(library, bundle.cnn("fp16").read_bytes(), SIZE, 1, capability="sm86")
    with pytest.raises(CommandError, match=r"^the engine was built and cannot be loaded \(.+\): nothing was published"):
        run_engine(library, engine.content, np.zeros((1, 1, SIZE, SIZE), np.float32))


def test_a_kill_leaves_nothing_that_looks_finished(bundle, tmp_path, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # a real kill cleans nothing up
    builder = ahead(("sm86", "sm89"))
    asked = iter([lambda _: None, killed])
    builder = replace(builder, compare=lambda engine: next(asked)(engine))
    with pytest.raises(KeyboardInterrupt):
        write_engines(bundle, tmp_path / "out", builder, 4, "command")
    assert list(tmp_path.rglob("cnn.sm86.engine"))
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_half_precision_is_refused(probe_bundle, tmp_path, capsys):
    assert plan(probe_bundle, tmp_path / "out", "--rtx", "sm86") == 2
    assert "has its CNN in fp32, and fp16 was asked for: export it with --precision fp16" in capsys.readouterr().err


def test_a_timing_cache_is_tensorrts_only(bundle, tmp_path, capsys):
    cache = tmp_path / "cnn.timing"
    assert plan(bundle, tmp_path / "out", "--timing-cache", str(cache)) == 2
    assert "there is no timing cache" in capsys.readouterr().err
    cache.write_bytes(b"")
    assert plan(bundle, tmp_path / "out", "--rtx", "sm86", "--timing-cache", str(cache)) == 2
    assert "TensorRT-RTX measures nothing ahead of time" in capsys.readouterr().err


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package `tensorrt` of which only what an import shows is there."""

    def install(text):
        (tmp_path / "site" / "tensorrt").mkdir(parents=True)
        (tmp_path / "site" / "tensorrt" / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "site")
        sys.modules.pop("tensorrt", None)

    yield install
    sys.modules.pop("tensorrt", None)


VERSIONS = "pip install 'lymphcad[tensorrt]' brings one from 10.12 on, below 12"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tensorrt is installed without its libraries"),
        ("__version__ = '10.13.0.35'", "tensorrt is installed without its libraries"),
        ("raise ImportError('libnvinfer.so.11: cannot open')", r"cannot be loaded (libnvinfer.so.11: cannot open)"),
        ("raise FileNotFoundError('no nvinfer')", "cannot be loaded (no nvinfer)"),
        ("import no_such_package", "cannot be loaded (No module named 'no_such_package')"),
        ("class Builder: pass\n__version__ = '8.6.1'", "tensorrt 8.6.1 is installed"),
        ("class Builder: pass\n__version__ = '10.11.0.33'", "tensorrt 10.11.0.33 is installed"),
        ("class Builder: pass\n__version__ = '12.0.0.1'", "tensorrt 12.0.0.1 is installed"),
    ],
)
def test_a_tensorrt_that_cannot_be_used_is_said_in_one_sentence(installed, bundle, tmp_path, capsys, text, words):
    installed(text)
    assert plan(bundle, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith(f": {VERSIONS}\n")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_no_library_is_said_in_one_sentence(bundle, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert plan(bundle, tmp_path / "out", *(["--rtx", "sm86"] if name == "tensorrt_rtx" else [])) == 2
    assert f"lymphcad: the package {name} is not installed: pip install 'lymphcad[" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("version", ["10.12.0.36", "11.4.0.106"])
def test_no_gpu_is_said_in_one_sentence(installed, bundle, tmp_path, capsys, version):
    installed(f"class Builder: pass\n__version__ = '{version}'")
    assert plan(bundle, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("lymphcad: torch finds no NVIDIA GPU")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
