"""The edge scorer: which runner is taken, its cache, what it imports, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from lymphcad_client.edge import cpu, runner
from lymphcad_client.edge.scorer import EdgeScorer
from onnx import numpy_helper
from pydicom.data import get_testdata_file

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle, sha256
from lymphcad.cli import main
from lymphcad.errors import BundleError, CommandError, Reason, ServerError
from lymphcad.golden import GoldenError
from lymphcad.phantom.sample import sample_nodes

RUNNERS = ["openvino", "onnxruntime"]
CT = get_testdata_file("CT_small.dcm", download=False)


@pytest.fixture(scope="module")
def node():
    return sample_nodes(2, 7)[1]


@pytest.fixture(scope="module")
def demo():
    return Bundle(DEMO_BUNDLE)


@pytest.fixture(scope="module")
def both_bundle(tmp_path_factory, brightness, window):
    """Return a bundle with its CNN in float32 and float16."""
    pytest.importorskip("torch")
    from lymphcad_export.bundle import Meaning, export_bundle
    from lymphcad_export.half import to_half
    from lymphcad_export.onnx_graphs import cnn_file

    def finish(folder):
        crops = np.random.default_rng(0).random((2, 1, window["size"], window["size"]), dtype=np.float32)
        to_half(cnn_file(folder, "fp32"), cnn_file(folder, "fp16"), crops)
        return {"precisions": ["fp32", "fp16"]}

    meaning = Meaning("both", "brightness", threshold=0.55, temperature=0.5, evidence_scale=1.0)
    return export_bundle(tmp_path_factory.mktemp("bundles") / "both", brightness, window, meaning, finish)


def changed(source: Bundle, folder: Path, **fields) -> Path:
    """Return a copy of a bundle whose manifest says something else."""
    shutil.copytree(source.path, folder)
    value = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(value | fields))
    return folder


def score(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["score", CT, "--node", "60,70", *map(str, arguments)])
    return int(ended.value.code or 0)


def run_python(program, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip


# which runner


def test_auto_takes_the_fastest_that_is_installed_and_says_why(demo, tmp_path, monkeypatch):
    with EdgeScorer(demo, cache=tmp_path) as scorer:
        assert scorer.about.startswith(f"Scored in int8 by OpenVINO {openvino.__version__.split('-')[0]} on ")
        assert "no engines for an RTX GPU were given" in scorer.about
    monkeypatch.setattr(runner, "find_spec", lambda name: name == "onnxruntime" or None)
    with EdgeScorer(demo, cache=tmp_path) as scorer:
        assert scorer.about.startswith("Scored in int8 by ONNX Runtime ")
        assert "OpenVINO, which is faster, is not installed" in scorer.about


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("auto", "neither OpenVINO nor ONNX Runtime: pip install 'lymphcad[edge]'"),
        ("openvino", "pip install 'lymphcad[edge]'"),
        ("onnxruntime", "pip install 'lymphcad[edge-min]'"),
    ],
)
def test_a_runner_that_is_not_installed(demo, monkeypatch, asked, words):
    monkeypatch.setattr(runner, "find_spec", lambda _: None)
    with pytest.raises(CommandError, match=re.escape(words)):
        EdgeScorer(demo, runner=asked)


def test_an_integrated_gpu_is_asked_for_and_may_be_missing(demo, tmp_path):
    if "GPU" in openvino.Core().available_devices:
        pytest.skip("this machine has one")
    with pytest.raises(CommandError, match=r"OpenVINO finds no GPU on this machine \(CPU only\)"):
        EdgeScorer(demo, runner="openvino-gpu", cache=tmp_path)


def test_options_that_do_not_go_together(demo, tmp_path):
    for fields, words in (
        ({"runner": "fastest"}, "'fastest' is no runner"),
        ({"runner": "openvino", "engines": tmp_path}, "takes no engines"),
        ({"runner": "tensorrt-rtx"}, "--engines"),
        ({"runner": "tensorrt-rtx", "engines": tmp_path, "precision": "int8"}, "built in fp16"),
    ):
        with pytest.raises(CommandError, match=words):
            EdgeScorer(demo, **fields)


@pytest.mark.parametrize("name", RUNNERS)
def test_precision_is_a_choice(both_bundle, node, tmp_path, name):
    found = {}
    for precision in ("fp32", "fp16", None):
        with EdgeScorer(both_bundle, runner=name, precision=precision, cache=tmp_path) as scorer:
            found[precision] = scorer.score(*node)
            assert scorer.precision == (precision or "fp16")
    assert found["fp32"].probability == pytest.approx(found["fp16"].probability, abs=0.01)
    assert found[None].probability == found["fp16"].probability
    if name == "onnxruntime":  # OpenVINO computes both in float32
        assert found["fp32"].probability != found["fp16"].probability
    for asked in (name, "auto"):
        with pytest.raises(BundleError, match="int8 was asked for"):
            EdgeScorer(both_bundle, runner=asked, precision="int8")


# the answers


@pytest.mark.parametrize("name", RUNNERS)
def test_many_threads_get_the_answers_of_one(demo, tmp_path, name):
    nodes = sample_nodes(8, 3) * 4
    with EdgeScorer(demo, runner=name, cache=tmp_path) as scorer:
        findings = [scorer.score(*one) for one in nodes[:1]]
        alone = [(one.probability, one.heatmap.copy()) for one in (scorer.score(*one) for one in nodes[:8])] * 4
        with ThreadPoolExecutor(8) as pool:
            findings += pool.map(lambda one: scorer.score(*one), nodes)
    for found, (probability, heatmap) in zip(findings, [alone[0], *alone], strict=True):
        assert found.probability == probability
        assert np.array_equal(found.heatmap, heatmap)  # nor did a later node write over it


def test_two_scorers_are_opened_at_once():
    """OpenVINO's first two calls at once wait for each other for ever; a new process, for only there is any first."""
    program = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from lymphcad.bundle import Bundle\nfrom lymphcad_client.edge.scorer import EdgeScorer\n"
        "from lymphcad.phantom.sample import sample_nodes\n"
        "bundle, node = Bundle(Path(sys.argv[1])), sample_nodes(1, 7)[0]\n"
        "def one(_):\n    with EdgeScorer(bundle) as scorer:\n        return scorer.score(*node).probability\n"
        "with ThreadPoolExecutor(4) as pool:\n    print(len(set(pool.map(one, range(8)))))\n"
    )
    done = run_python(program, DEMO_BUNDLE)
    assert done.stdout == "1\n", done.stderr


def test_an_engine_that_fails_is_a_row_that_failed(demo, tmp_path):
    for name in RUNNERS:
        opened = runner.choose_runner(demo, name, cache=tmp_path).runner
        wrong = {"IMAGE": np.zeros((1, 5), np.int16), "SPACING_MM": np.ones((1, 2), np.float32)}
        with pytest.raises(ServerError) as error:
            opened.run(wrong | {"CENTER": np.ones((1, 2), np.float32)})
        assert error.value.reason is Reason.RUNNER_ERROR
        assert "\n" not in str(error.value)
        # and the next one is answered
        runner.check_runner(opened, demo)


# what it costs


@pytest.mark.parametrize("name", RUNNERS)
def test_nothing_is_imported_that_is_not_used(tmp_path, name):
    program = (
        "import sys\nfrom lymphcad.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n    assert not ended.code, ended.code\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'pandas', 'matplotlib', 'scipy', 'onnx',"
        " 'grpc', 'tritonclient', 'google', 'streamlit', 'openvino', 'onnxruntime', 'cryptography', 'jinja2'})"
    )
    arguments = ["score", CT, "--node", "60,70", "--edge", DEMO_BUNDLE, "--out", tmp_path / "out", "--runner", name]
    done = run_python(program, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{{'{name}'}}"


# the cache


@pytest.fixture
def compiled(monkeypatch):
    """Return the list of graphs that OpenVINO compiles from now on."""
    seen = []
    original = openvino.Core.compile_model

    def compile_model(self, model, *more):
        seen.append(Path(model).name)
        return original(self, model, *more)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    return seen


def kept(cache):
    (file,) = cache.iterdir()
    return file


def open_and_score(bundle, node, cache):
    with EdgeScorer(bundle, runner="openvino", cache=cache) as scorer:
        return scorer.score(*node).probability, scorer.about


def test_a_compiled_model_is_compiled_once(demo, node, tmp_path, compiled):
    first, about = open_and_score(demo, node, tmp_path / "cache")
    assert compiled == ["edge.int8.onnx"]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    again, about_again = open_and_score(demo, node, tmp_path / "cache")
    assert compiled == ["edge.int8.onnx"]
    assert (again, about_again) == (first, about)


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: flip(old, len(old) // 2),
        lambda old: flip(old, len(old) - 1),
        lambda old: old[:-1000],
        lambda old: old[:100],
        lambda old: old[:0],
        lambda old: b"\0" * len(old),
        lambda old: b"[1, 2]\n" + old,
        lambda old: flip(old, old.index(b'"sha256": "') + 11),
    ],
    ids=["middle", "end", "cut", "cut in the line", "empty", "zeros", "another JSON", "digest"],
)
def test_a_damaged_cache_is_said_and_made_anew(demo, node, tmp_path, compiled, damage):
    whole, _ = open_and_score(demo, node, tmp_path)
    good = kept(tmp_path).read_bytes()
    kept(tmp_path).write_bytes(damage(good))
    found, about = open_and_score(demo, node, tmp_path)
    assert found == whole
    assert "The compiled model in the cache was damaged, so it was compiled again." in about
    assert compiled == ["edge.int8.onnx"] * 2
    _, about = open_and_score(demo, node, tmp_path)
    assert "damaged" not in about
    assert len(compiled) == 2


def test_a_compiled_model_of_another_bundle_or_version_is_not_used(demo, node, tmp_path, compiled):
    """Whatever its file is called: what it was made of stands in it."""
    expected, _ = open_and_score(demo, node, tmp_path / "cache")
    file = kept(tmp_path / "cache")
    for name in ("bundle", "graph", "openvino", "device", "capabilities", "settings"):
        line, content = file.read_bytes().split(b"\n", 1)
        said = json.loads(line)
        assert name in said
        file.write_bytes(json.dumps(said | {name: "another"}).encode() + b"\n" + content)
        compiled.clear()
        found, about = open_and_score(demo, node, tmp_path / "cache")
        assert found == expected
        assert compiled == ["edge.int8.onnx"]
        assert "damaged" not in about


def test_a_compiled_model_that_openvino_refuses_is_made_anew(demo, node, tmp_path):
    import hashlib

    open_and_score(demo, node, tmp_path)
    line, content = kept(tmp_path).read_bytes().split(b"\n", 1)
    content = content[: len(content) // 2]
    said = json.loads(line) | {"sha256": hashlib.sha256(content).hexdigest()}
    kept(tmp_path).write_bytes(json.dumps(said).encode() + b"\n" + content)
    _, about = open_and_score(demo, node, tmp_path)
    assert "could not be loaded, so it was compiled again" in about


def test_a_cache_that_cannot_be_kept_is_said_and_leaves_nothing(demo, node, tmp_path):
    (tmp_path / "file").write_text("a file where the folder should be")
    _, about = open_and_score(demo, node, tmp_path / "file")
    assert "could not be kept (" in about
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        _, about = open_and_score(demo, node, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "could not be kept (File too large), so the next start compiles again." in about
    assert not list((tmp_path / "cache").iterdir())


# what is refused


def test_a_bundle_of_another_version_or_changed(demo, tmp_path, capsys):
    older = changed(demo, tmp_path / "older", format=1)
    damaged = Path(shutil.copytree(demo.path, tmp_path / "damaged"))
    content = (damaged / "edge.int8.onnx").read_bytes()
    (damaged / "edge.int8.onnx").write_bytes(flip(content, len(content) // 2))
    for bundle, words in ((older, "is of format 1, and this version reads 2"), (damaged, "does not match the digest")):
        assert score("--edge", bundle, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RUNNERS)
def test_a_machine_that_computes_something_else_scores_nothing(demo, tmp_path, capsys, name):
    """As a wrong driver or a wrong compiled model would: the graph is another than the one that was proven."""
    folder = Path(shutil.copytree(demo.path, tmp_path / "bundle"))
    graph = onnx.load(folder / "edge.int8.onnx")
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name.startswith("cam/") and values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(numpy_helper.from_array(values * 0.5, tensor.name))
    onnx.save(graph, folder / "edge.int8.onnx")
    value = json.loads((folder / "bundle.json").read_text())
    value["files"]["edge.int8.onnx"] = sha256(folder / "edge.int8.onnx")
    (folder / "bundle.json").write_text(json.dumps(value))
    with pytest.raises(GoldenError, match="does not compute what the bundle was proven with"):
        EdgeScorer(Bundle(folder), runner=name)
    assert score("--edge", folder, "--runner", name, "--out", tmp_path / "out") == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_key_asks_for_a_signature(demo, tmp_path, capsys):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(public)
    assert score("--edge", demo.path, "--key", tmp_path / "key.pem", "--out", tmp_path / "out") == 2
    assert "is not signed" in capsys.readouterr().err


# the CPU


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512_vnni", ""),
        ("flags\t\t: fpu sse2 avx2 avx_vnni", ""),
        ("Features\t: fp asimd asimddp", ""),
        ("flags\t\t: fpu sse2 avx avx2 avx512f", "no instructions for int8 (VNNI)"),
        ("Features\t: fp asimd", "no instructions for int8 (VNNI)"),
        ("flags\t\t: fpu sse2 ssse3", "neither AVX2 nor VNNI"),
        ("model name\t: none", ""),
        (None, ""),
    ],
)
def test_a_cpu_on_which_eight_bits_are_slow_is_said(tmp_path, lines, words):
    file = tmp_path / "cpuinfo"
    if lines is not None:
        file.write_text(f"processor\t: 0\n{lines}\n\n")
    said = cpu.eight_bits_are_slow(file)
    assert words in said
    assert bool(said) == bool(words)
    assert not said or "int8 is as right as elsewhere, only slower" in said


def test_it_is_said_of_eight_bits_only(demo, probe_bundle, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("flags : sse2 avx2\n")
    monkeypatch.setattr(runner, "eight_bits_are_slow", lambda: cpu.eight_bits_are_slow(file))
    for bundle, expected in ((demo, True), (probe_bundle, False)):
        with EdgeScorer(bundle, cache=tmp_path / "cache") as scorer:
            assert ("only slower" in scorer.about) == expected


def test_the_engines_packages_are_those_that_are_looked_for():
    assert all(importlib.util.find_spec(package) for package in runner.PACKAGES.values())
