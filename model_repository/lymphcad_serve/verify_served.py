"""Whether a repository or a server is what was proven, and computes here what it did there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_client.triton import TritonScorer

from lymphcad.bundle import GOLDEN, Tolerance, bundle_label, parse_manifest, sha256
from lymphcad.errors import BundleError
from lymphcad.golden import INPUTS, check_golden, read_golden, score_golden
from lymphcad.plan import check_plan
from lymphcad.slice import CtSlice
from lymphcad_serve.assets import MODEL_REPOSITORY
from lymphcad_serve.repository import CODE, STEPS
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.verify import Verified, embedded_engine, run_of, versions_of
from lymphcad_serve.versions import config_name, read_config, version_in_use, versions_of_repository

if TYPE_CHECKING:
    import numpy.typing as npt
    from lymphcad_client.tls import Tls
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    from lymphcad.bundle import Bundle

    Arrays = dict[str, npt.NDArray[Any]]


def verify_repository(path: Path) -> Verified:
    """Check that a repository has only files of its bundles and ours, and score the golden inputs with what runs here.

    Parameters
    ----------
    path
        The folder that `lymphcad repository` wrote.

    Returns
    -------
    Verified
        Everything holds, in every version; label and package versions are of the one in use. A TensorRT plan is not
        run.

    Raises
    ------
    BundleError
        If a file is missing, changed or another's, a TensorRT plan was built from another graph, or the models are not
        set to the same version.
    GoldenError
        If the golden inputs give something else on this machine.
    """
    known = versions_of_repository(path)
    if not known:
        raise BundleError(f"{ENSEMBLE}/configs in the repository '{path}' has no version: write the repository again")
    used = version_in_use(path)
    found = {version: _verify_version(path, version, alone=len(known) == 1) for version in known}
    return replace(
        found[used],
        files=sum(one.files for one in found.values()),
        golden=tuple(who for one in found.values() for who in one.golden),
    )


def _verify_version(path: Path, version: int, *, alone: bool) -> Verified:
    ensemble = read_config(path, ENSEMBLE, config_name(version))
    raw = ensemble.parameters["bundle_json"].string_value.encode()
    manifest, label = parse_manifest(raw), bundle_label(parse_manifest(raw), _digest(raw))
    ours = {file: sha256(MODEL_REPOSITORY / "onnx_cpu" / file) for file in CODE}
    files, golden = 0, []
    for model in (ENSEMBLE,) if ensemble.backend == "python" else (ENSEMBLE, *STEPS):
        config, folder = read_config(path, model, config_name(version)), path / model / str(version)
        pinned = {step.model_version for step in config.ensemble_scheduling.step}
        if pinned - {version} or list(config.version_policy.specific.versions) != [version]:
            raise BundleError(
                f"{model}/{config_name(version)} in the repository '{path}' is not set to version {version} alone:"
                " write the repository again"
            )
        stated = dict(entry.split(":") for entry in config.parameters["sha256"].string_value.split(",") if entry)
        wanted = {*stated, *CODE} if config.backend == "python" else {_model_file(config)} - {""}
        missing = sorted(name for name in wanted if not (folder / name).is_file())
        if missing:
            raise BundleError(f"{model}/{version} in '{path}' lacks {', '.join(missing)}: write the repository again")
        if config.platform == "tensorrt_plan":
            check_plan(folder / "model.plan", manifest)
        for file in sorted(folder.iterdir()):
            known = {ours.get(file.name), stated.get(file.name)} - {None}
            if file.suffix == ".onnx":
                known = set(manifest.files.values())
            if file.suffix != ".plan" and not file.name.endswith(".plan.json") and sha256(file) not in known:
                raise BundleError(
                    f"{model}/{version}/{file.name} in the repository '{path}' is not of the bundle {label}, or was"
                    " changed: write the repository again"
                )
            files += 1
        if config.backend == "python":
            who = f"the model {model}" if alone else f"the model {model}, version {version}"
            _score_golden(folder, {name: value.string_value for name, value in config.parameters.items()}, who)
            golden.append(who)
    return Verified(label, files, tuple(golden), versions_of(manifest))


def _score_golden(folder: Path, settings: dict[str, str], who: str) -> None:
    """Score the golden inputs of a model of the embedded server as it does when it loads."""
    chain = embedded_engine(
        folder, settings["graphs"].split(","), settings["openvino"].split(","), settings["precision"]
    )
    with np.load(folder / GOLDEN, allow_pickle=False) as stored:
        expected = {name: stored[name] for name in stored.files}
    probability, heatmap, relative = expected.pop("tolerance").tolist()
    score_golden(run_of(chain), expected, Tolerance(probability=probability, heatmap=heatmap, relative=relative), who)


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


def _model_file(config: ModelConfig) -> str:
    """Return what Triton's own backends load; nothing for an ensemble."""
    kinds = {"tensorrt_plan": "model.plan", "ensemble": ""}
    return kinds.get(config.platform, "model.onnx")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
