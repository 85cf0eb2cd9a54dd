"""What stands beside a TensorRT engine: the library, GPU and ONNX file it came of, and the check before its use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.bundle import sha256
from lymphcad.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Manifest

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Shape = tuple[int, int, int, int]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Profile(_Frozen):
    """Shapes of CROP, [B, 1, S, S], that an engine takes and is tuned for."""

    min: _Shape
    opt: _Shape
    max: _Shape


class Comparison(_Frozen):
    """How far the engine is from ONNX Runtime on the same crops.

    Attributes
    ----------
    crops
        How many: the golden inputs, each several times.
    probability_max
        Largest difference of a probability.
    heatmap_mean
        Largest of the crops' mean differences of the heatmap, grey levels of 255.
    """

    crops: int
    probability_max: float
    heatmap_mean: float


class Sidecar(_Frozen):
    """The contents of ``cnn.plan.json`` or ``cnn.sm86.engine.json``.

    Attributes
    ----------
    library, version
        What built the engine; no other version of TensorRT loads it.
    gpu
        Name of the GPU that built it; None for an engine that was built ahead of time.
    compute_capability
        Of that GPU, or the one built for, e.g. ``8.6``.
    driver
        Version of NVIDIA's driver; None ahead of time.
    plan_sha256
        Of the engine's file.
    onnx, onnx_sha256
        The file of the bundle that it was built from.
    bundle, bundle_sha256
        Label and digest of the bundle.
    max_batch
        Largest B.
    profile
        See `Profile`.
    flags
        The builder's, by name. Precisions are not among them: they stand in the ONNX file, which is strongly typed.
    comparison
        None for an engine that was never executed.
    command
        Which repeats it.
    """

    format: Literal[1] = 1
    library: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    gpu: str | None
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")]
    driver: str | None
    plan_sha256: _Digest
    onnx: str
    onnx_sha256: _Digest
    bundle: str
    bundle_sha256: _Digest
    max_batch: Annotated[int, Field(ge=1)]
    profile: Profile
    flags: tuple[str, ...]
    comparison: Comparison | None
    command: str
    notice: str = RESEARCH_USE_ONLY


@dataclass(frozen=True)
class Machine:
    """The machine that loads a plan.

    Attributes
    ----------
    version
        Of the library that loads it.
    gpu
        The GPU's name.
    compute_capability
        E.g. ``8.6``.
    """

    version: str
    gpu: str
    compute_capability: str


def sidecar_of(plan: Path) -> Path:
    """Return where the sidecar of a plan lies."""
    return plan.with_name(f"{plan.name}.json")


def check_plan(plan: Path, manifest: Manifest, machine: Machine | None = None) -> Sidecar:
    """Refuse an engine that is not the bundle's, or not the machine's.

    Parameters
    ----------
    plan
        The engine's file; its sidecar lies beside it.
    manifest
        Of the bundle that is to be served.
    machine
        Which loads it; None if that is another one than this.

    Returns
    -------
    Sidecar
        Which the engine matches.

    Raises
    ------
    BundleError
        If the engine or its sidecar is missing or changed, the engine was built from another ONNX file than the
        bundle's, or the machine has another version of TensorRT or another GPU; with what to build again.
    """
    file = sidecar_of(plan)
    if not plan.is_file():
        raise BundleError(f"there is no plan '{plan}': build it with `lymphcad plan`")
    try:
        sidecar = Sidecar.model_validate_json(file.read_bytes())
    except OSError:
        raise BundleError(
            f"the plan '{plan}' has no {file.name} beside it, so nobody knows what it was built from: copy both files,"
            " or build it again with `lymphcad plan`"
        ) from None
    except ValidationError as error:
        raise BundleError(
            f"'{file}' is damaged or of another version ({_first(error)}): build the plan again with `lymphcad plan`"
        ) from None
    if sha256(plan) != sidecar.plan_sha256:
        raise BundleError(
            f"the plan '{plan}' does not match the digest in {file.name}, so it was changed or damaged: copy it again"
        )
    if manifest.files.get(sidecar.onnx) != sidecar.onnx_sha256:
        raise BundleError(
            f"the plan '{plan}' was built from {sidecar.onnx} of {sidecar.bundle}, which is not that of the bundle"
            f" {manifest.name}: build it again from this bundle with `lymphcad plan`"
        )
    if machine is not None and machine.version != sidecar.version:
        raise BundleError(
            f"the plan '{plan}' was built by {sidecar.library} {sidecar.version}, and this machine has"
            f" {machine.version}: build it again with `lymphcad plan` under the version that loads it"
        )
    if machine is not None and sidecar.gpu is not None and machine.gpu != sidecar.gpu:
        raise BundleError(
            f"the plan '{plan}' was built on {sidecar.gpu}, and this machine has {machine.gpu}: build it again with"
            " `lymphcad plan` on the GPU type that loads it"
        )
    if machine is not None and machine.compute_capability != sidecar.compute_capability:
        raise BundleError(
            f"the plan '{plan}' was built for compute capability {sidecar.compute_capability}, and this machine's"
            f" {machine.gpu} has {machine.compute_capability}: build it again with `lymphcad plan` for that one"
        )
    return sidecar


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])
