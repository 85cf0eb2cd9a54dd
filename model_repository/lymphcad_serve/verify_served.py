"""Whether a repository or a server is what was proven, and computes here what it did there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format
from lymphcad_client.triton import TritonScorer
from tritonclient.grpc import model_config_pb2

from lymphcad.bundle import GOLDEN, Tolerance, bundle_label, parse_manifest, sha256
from lymphcad.errors import BundleError
from lymphcad.golden import INPUTS, check_golden, read_golden, score_golden
from lymphcad.plan import check_plan
from lymphcad.slice import CtSlice
from lymphcad_serve.assets import MODEL_REPOSITORY
from lymphcad_serve.repository import CODE, STEPS, VERSION
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.verify import Verified, embedded_engine, run_of, versions_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from lymphcad_client.tls import Tls

    from lymphcad.bundle import Bundle

    Arrays = dict[str, npt.NDArray[Any]]


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
            chain = embedded_engine(
                folder, settings["graphs"].split(","), settings["openvino"].split(","), settings["precision"]
            )
            with np.load(folder / GOLDEN, allow_pickle=False) as stored:
                expected = {name: stored[name] for name in stored.files}
            probability, heatmap, relative = expected.pop("tolerance").tolist()
            tolerance = Tolerance(probability=probability, heatmap=heatmap, relative=relative)
            score_golden(run_of(chain), expected, tolerance, f"the model {model}")
            golden.append(f"the model {model}")
    return Verified(bundle_label(manifest, _digest(raw)), files, tuple(golden), versions_of(manifest))


def verify_server(bundle: Bundle, address: str, tls: Tls | None = None) -> str:
    """Have a server score a bundle's golden inputs.

    Parameters
    ----------
    bundle
        That it must serve.
    address
        ``grpc://host:port``, or ``grpcs://host:port`` for TLS.
    tls
        Certificates, for an address with TLS.

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
    with TritonScorer(address, bundle_digest=bundle.digest, tls=tls) as scorer:
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
