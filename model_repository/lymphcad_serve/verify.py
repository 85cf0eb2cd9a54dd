"""Whether a bundle, a repository or a server is what was proven, and computes here what it did there."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format
from lymphcad_client.edge.runner import PACKAGES, check_runner, choose_runner, installed
from lymphcad_client.triton import TritonScorer
from tritonclient.grpc import model_config_pb2

from lymphcad.bundle import GOLDEN, Bundle, Manifest, Tolerance, bundle_label, parse_manifest, sha256
from lymphcad.errors import BundleError, CommandError
from lymphcad.golden import INPUTS, check_golden, read_golden, score_golden
from lymphcad.plan import check_plan
from lymphcad.slice import CtSlice
from lymphcad_serve.assets import MODEL_REPOSITORY
from lymphcad_serve.repository import CODE, ENSEMBLE, STEPS, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Verified:
    """What holds.

    Attributes
    ----------
    label
        Name and digest of the bundle.
    files
        How many files have the digest that they must have.
    golden
        What scored the golden inputs again, in words.
    versions
        Of each package that made the bundle: there, and here (None if it is not installed).
    """

    label: str
    files: int
    golden: tuple[str, ...]
    versions: dict[str, tuple[str, str | None]]


def verify_bundle(path: Path, key: Path | None = None) -> Verified:
    """Check the digests of a bundle, and score its golden inputs again in each precision with all that is installed.

    The three graphs one after the other, as the embedded server runs them, and the merged one in each runner.

    Parameters
    ----------
    path
        The folder.
    key
        File of the public key by whose owner it must be signed.

    Returns
    -------
    Verified
        Everything holds.

    Raises
    ------
    BundleError
        If a file is missing or changed, or the signature is not the key's.
    GoldenError
        If the golden inputs give something else on this machine.
    """
    bundle = Bundle(path, key)
    manifest, runners = bundle.manifest, installed()
    if not runners:
        raise CommandError("nothing is installed that scores the golden inputs: pip install 'lymphcad[edge]'")
    golden = []
    for precision in manifest.precisions:
        cnn = bundle.cnn(precision).stem
        for name in runners if len(runners) == len(PACKAGES) else ():
            on_openvino = [cnn] if name == "openvino" else []
            chain = _engine(path, ["preprocess", cnn, "cam"], on_openvino)
            who = f"{precision} in {name}"
            score_golden(_run(chain), read_golden(bundle, precision), manifest.golden[precision], who)
            golden.append(who)
        for name in runners:
            runner = choose_runner(bundle, name, precision=precision).runner
            check_runner(runner, bundle)
            runner.close()
            golden.append(f"edge.{precision}.onnx in {name}")
    return Verified(bundle.label, len(manifest.files), tuple(golden), _versions(manifest))


def verify_repository(path: Path) -> Verified:
    """Check that a repository has only files of its bundle and ours, and score the golden inputs with what runs here.

    Parameters
    ----------
    path
        The folder that `lymphcad repository` wrote.

    Returns
    -------
    Verified
        Everything holds; a TensorRT plan is not run.

    Raises
    ------
    BundleError
        If a file is missing, changed or another's, or a TensorRT plan was built from another graph.
    GoldenError
        If the golden inputs give something else on this machine.
    """
    ensemble = _config(path, ENSEMBLE)
    raw = ensemble.parameters["bundle_json"].string_value.encode()
    manifest = parse_manifest(raw)
    ours = {file: sha256(MODEL_REPOSITORY / "onnx_cpu" / file) for file in CODE}
    files, golden = 0, []
    for model in (ENSEMBLE,) if ensemble.backend == "python" else (ENSEMBLE, *STEPS):
        config, folder = _config(path, model), path / model / VERSION
        stated = dict(entry.split(":") for entry in config.parameters["sha256"].string_value.split(",") if entry)
        wanted = {*stated, *CODE} if config.backend == "python" else {_model_file(config)} - {""}
        missing = sorted(name for name in wanted if not (folder / name).is_file())
        if missing:
            raise BundleError(f"{model}/{VERSION} in '{path}' lacks {', '.join(missing)}: write the repository again")
        if config.platform == "tensorrt_plan":
            check_plan(folder / "model.plan", manifest)
        for file in sorted(folder.iterdir()):
            known = {ours.get(file.name), stated.get(file.name)} - {None}
            if file.suffix == ".onnx":
                known = set(manifest.files.values())
            if file.suffix != ".plan" and not file.name.endswith(".plan.json") and sha256(file) not in known:
                raise BundleError(
                    f"{model}/{VERSION}/{file.name} in the repository '{path}' is not of the bundle"
                    f" {bundle_label(manifest, _digest(raw))}, or was changed: write the repository again"
                )
            files += 1
        if config.backend == "python":
            settings = {name: value.string_value for name, value in config.parameters.items()}
            chain = _engine(
                folder, settings["graphs"].split(","), settings["openvino"].split(","), settings["precision"]
            )
            with np.load(folder / GOLDEN, allow_pickle=False) as stored:
                expected = {name: stored[name] for name in stored.files}
            probability, heatmap, relative = expected.pop("tolerance").tolist()
            tolerance = Tolerance(probability=probability, heatmap=heatmap, relative=relative)
            score_golden(_run(chain), expected, tolerance, f"the model {model}")
            golden.append(f"the model {model}")
    return Verified(bundle_label(manifest, _digest(raw)), files, tuple(golden), _versions(manifest))


def verify_server(bundle: Bundle, address: str) -> str:
    """Have a server score a bundle's golden inputs.

    Parameters
    ----------
    bundle
        That it must serve.
    address
        ``grpc://host:port``.

    Returns
    -------
    str
        Who scored them, and in which precision.

    Raises
    ------
    ServerError
        If it is away, not ready or serves another bundle.
    GoldenError
        If it answers something else than the bundle was proven with.
    """
    with TritonScorer(address, bundle_digest=bundle.digest) as scorer:
        precision = scorer.cnn_precision
        expected = read_golden(bundle, precision)
        found = [
            scorer.score(CtSlice(image, (float(spacing[0]), float(spacing[1])), Path(GOLDEN)), *map(float, center))
            for image, spacing, center in zip(*(expected[name] for name in INPUTS[:3]), strict=True)
        ]
        answers: Arrays = {
            "PROBABILITY": np.array([[one.probability] for one in found], np.float32),
            "HEATMAP": np.stack([one.heatmap for one in found]),
        }
        who = f"{address} in {scorer.computed_in}"
        check_golden(answers, expected, bundle.manifest.golden[scorer.computed_in], who)
    return who


def _run(engine: Any) -> Callable[[Arrays], Arrays]:
    """Return what runs the engine of the embedded server, which adds to the tensors that it is given."""

    def run(tensors: Arrays) -> Arrays:
        engine.run(tensors)
        return tensors

    return run


def _engine(folder: Path, graphs: list[str], on_openvino: list[str], precision: str = "f32") -> Any:
    """Return the engine of the embedded server, on all cores."""
    spec = importlib.util.spec_from_file_location("onnx_engine", MODEL_REPOSITORY / "onnx_cpu" / "onnx_engine.py")
    if spec is None or spec.loader is None:
        raise CommandError("the engine of the embedded server is not where it was installed: install lymphcad again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine(folder, graphs, on_openvino, threads=0, precision=precision)


def _config(path: Path, model: str) -> model_config_pb2.ModelConfig:
    file = path / model / "config.pbtxt"
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        raise BundleError(
            f"{model}/config.pbtxt in the repository '{path}' is missing or damaged: write the repository again"
        ) from None


def _model_file(config: model_config_pb2.ModelConfig) -> str:
    """Return what Triton's own backends load; nothing for an ensemble."""
    kinds = {"tensorrt_plan": "model.plan", "ensemble": ""}
    return kinds.get(config.platform, "model.onnx")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _versions(manifest: Manifest) -> dict[str, tuple[str, str | None]]:
    return {name: (then, _installed(name)) for name, then in manifest.versions.items()}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
