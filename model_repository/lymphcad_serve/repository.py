"""Write a complete Triton model repository from a bundle."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from lymphcad.bundle import BUNDLE_JSON, CAM, GOLDEN, PREPROCESS, Bundle, Precision, sha256
from lymphcad.errors import CommandError
from lymphcad.golden import read_golden
from lymphcad.plan import check_plan, sidecar_of
from lymphcad_serve.assets import MODEL_REPOSITORY
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.target import Target as Target
from lymphcad_serve.versions import (
    config_name,
    next_version,
    pin,
    read_config,
    version_in_use,
    versions_of_repository,
    write_config,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.plan import Sidecar

STEPS = ("preprocess", "cnn", "cam")
_MADE_BY = {"preprocess": ["CROP"], "cnn": ["LOGITS", "MAPS"], "cam": ["PROBABILITY", "HEATMAP"]}
CODE = ("model.py", "onnx_engine.py")


_CONFIGS = {
    Target.GPU: "config.pbtxt",
    Target.CPU: "configs/cpu.pbtxt",
    Target.EMBEDDED: "configs/embedded.pbtxt",
    Target.EMBEDDED_STEPS: "configs/embedded_steps.pbtxt",
}


def write_repository(
    bundle: Bundle,
    out: Path,
    target: Target,
    plan: Path | None = None,
    *,
    precision: Precision | None = None,
    bf16: bool = False,
    add: bool = False,
) -> int:
    """Write everything that ``tritonserver --model-repository=OUT`` loads, with no other file of ours needed.

    Parameters
    ----------
    bundle
        What to serve.
    out
        A folder that does not exist or is empty; with `add`, a repository that was written for the same target.
    target
        The kind of server.
    plan
        For ``gpu``: the TensorRT plan of the CNN, built from this bundle on the GPU type that serves it; its sidecar
        lies beside it and goes with it.
    precision
        Of the CNN, for CPUs; the bundle's preferred one if None.
    bf16
        Whether the CNN's floating-point layers are computed in bfloat16, else in float32; for CPUs.
    add
        Put the bundle beside the versions that are there, as the next one; which one is in use does not change.

    Returns
    -------
    int
        The bundle's version, 1 in a new repository (`lymphcad_serve.versions`).

    Raises
    ------
    CommandError
        If the folder has something in it or, with `add`, is no such repository; there is no plan; or a precision is
        asked of a GPU.
    BundleError
        If the bundle lacks the precision, or the plan is changed, without its sidecar, or not this bundle's.
    """
    if add:
        _check_target(out, target)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"'{out}' is not an empty folder: name a new one for the repository")
    if target is Target.GPU and (bf16 or precision is not None):
        raise CommandError("the target gpu computes as its TensorRT plan was built: leave --bf16 and --precision out")
    built = _built(bundle, plan) if target is Target.GPU else None
    taken: Precision = precision or ("fp16" if target is Target.GPU else bundle.manifest.preferred)
    graphs = {"preprocess": bundle.path / PREPROCESS, "cnn": bundle.cnn(taken), "cam": bundle.path / CAM}
    single = target is Target.EMBEDDED
    number = next_version(out)
    for model in (ENSEMBLE,) if single else (*STEPS, ENSEMBLE):
        config = _config(bundle, model, target)
        config.version_policy.specific.versions[:] = [number]
        _set_precision(config, taken, bf16=bf16)
        if model == ENSEMBLE:
            config.parameters["cnn_precision"].string_value = taken
            config.parameters["computed_in"].string_value = "bf16" if bf16 else taken
            config.parameters["target"].string_value = target.value
            for step in config.ensemble_scheduling.step:
                step.model_version = number
        if built is not None:
            _limit_batch(config, built.max_batch)
        version = out / model / str(number)
        version.mkdir(parents=True)
        if config.backend == "python":
            for file in CODE:
                shutil.copyfile(MODEL_REPOSITORY / "onnx_cpu" / file, version / file)
            for name in config.parameters["graphs"].string_value.split(","):
                shutil.copyfile(graphs[name], version / f"{name}.onnx")
            _write_golden(version / GOLDEN, config, bundle, taken, bf16=bf16)
            digests = {
                file.name: sha256(file) for file in sorted(version.iterdir()) if file.suffix in (".onnx", ".npz")
            }
            config.parameters["sha256"].string_value = ",".join(f"{name}:{digest}" for name, digest in digests.items())
        elif config.platform == "tensorrt_plan" and plan is not None:
            shutil.copyfile(plan, version / "model.plan")
            shutil.copyfile(sidecar_of(plan), sidecar_of(version / "model.plan"))
        elif model in STEPS:
            shutil.copyfile(graphs[model], version / "model.onnx")
        write_config(out, config, number)
    if not add:
        pin(out, number)
    return number


def _check_target(out: Path, target: Target) -> None:
    """Refuse to add to what is no repository, or one for another kind of server."""
    if not versions_of_repository(out):
        raise CommandError(
            f"'{out}' is no repository with versions of ours: write it with `lymphcad repository` without --add"
        )
    found = read_config(out, ENSEMBLE, config_name(version_in_use(out))).parameters["target"].string_value
    if found != target.value:
        raise CommandError(
            f"the repository '{out}' was written for the target {found}, and {target.value} was asked for: add with"
            f" --target {found}, or write another repository"
        )


def _built(bundle: Bundle, plan: Path | None) -> Sidecar:
    """Return what is known of a plan that Triton can load and that is the bundle's."""
    if plan is None:
        raise CommandError(
            "the target gpu serves a TensorRT plan, and none was given: build it with `lymphcad plan` on the server's"
            " own GPU type and name it with --plan"
        )
    sidecar = check_plan(plan, bundle.manifest)
    if sidecar.library != "tensorrt":
        raise CommandError(
            f"'{plan}' is an engine of TensorRT-RTX, which Triton does not load: build a plan with `lymphcad plan`"
            " without --rtx"
        )
    return sidecar


def _limit_batch(config: model_config_pb2.ModelConfig, largest: int) -> None:
    """Let no more crops into a request than the plan takes, and the ensemble's other steps no more than the CNN."""
    config.max_batch_size = largest
    preferred = config.dynamic_batching.preferred_batch_size
    if preferred:
        preferred[:] = [size for size in preferred if size <= largest]


def _config(bundle: Bundle, model: str, target: Target) -> model_config_pb2.ModelConfig:
    """Return a model's configuration with this bundle's shapes, and for the ensemble, what the bundle says."""
    source = MODEL_REPOSITORY / model / _CONFIGS[target]
    config = text_format.Parse(source.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    manifest = bundle.manifest
    size, maps = manifest.preprocess.size, manifest.map_size
    dims = {"CROP": [1, size, size], "MAPS": [2, *maps], "HEATMAP": [size, size]}
    warmups = [value for warmup in config.model_warmup for value in warmup.inputs.items()]
    tensors = [(tensor.name, tensor) for tensor in (*config.input, *config.output)]
    for name, tensor in tensors + warmups:
        if name in dims:
            tensor.dims[:] = dims[name]
    if model == ENSEMBLE:
        # A client learns from the server itself what a score means; no copy of the bundle is needed beside it.
        config.parameters["bundle_json"].string_value = (bundle.path / BUNDLE_JSON).read_text(encoding="utf-8")
        config.parameters["bundle_sha256"].string_value = bundle.digest  # a balancer looks for it
    return config


def _write_golden(
    path: Path, config: model_config_pb2.ModelConfig, bundle: Bundle, precision: Precision, *, bf16: bool
) -> None:
    """Write the golden inputs of one model, what its graphs make of them, and the tolerances as onnx_cpu takes them."""
    golden = read_golden(bundle, precision)
    tolerance = bundle.manifest.golden["bf16" if bf16 else precision]
    graphs = config.parameters["graphs"].string_value.split(",")
    names = [*(tensor.name for tensor in config.input), *(name for graph in graphs for name in _MADE_BY[graph])]
    limits = np.array([tolerance.probability, tolerance.heatmap, tolerance.relative])
    np.savez_compressed(path, tolerance=limits, **{name: golden[name] for name in names})


def _set_precision(config: model_config_pb2.ModelConfig, precision: Precision, *, bf16: bool) -> None:
    """Say in which precision a model computes: left to itself, OpenVINO takes bfloat16 wherever the CPU has it."""
    if config.backend == "python":
        config.parameters["precision"].string_value = "bf16" if bf16 else "f32"
    elif config.backend == "openvino" and bf16:
        config.parameters["HINT_BF16"].string_value = "YES"
    elif config.backend == "openvino" and precision != "int8":
        # Triton's openvino backend has no parameter that says float32; ONNX Runtime is as fast on it.
        config.backend = "onnxruntime"
