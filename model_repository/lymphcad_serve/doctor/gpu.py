"""NVIDIA's driver and GPU, and whether a TensorRT plan is for them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.errors import BundleError, CommandError
from lymphcad.plan import Machine, check_plan
from lymphcad.tensorrt_library import load
from lymphcad_serve.doctor.check import fail, ok, skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lymphcad.bundle import Bundle
    from lymphcad_serve.doctor.check import Check

_ASKED = ("name", "compute_cap", "driver_version")
_ANSWER_S = 20


@dataclass(frozen=True)
class Gpu:
    """A GPU; see `lymphcad.plan.Sidecar`."""

    name: str
    compute_capability: str
    driver: str


def find_gpu() -> Gpu | str:
    """Return the first GPU that the driver knows, or why there is none.

    By nvidia-ml-py where it is installed (the extra tensorrt brings it), else by ``nvidia-smi``.
    """
    try:
        import pynvml
    except ImportError:
        return _by_nvidia_smi()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVIDIA's driver cannot be asked ({error})"
    try:
        if not pynvml.nvmlDeviceGetCount():
            return "NVIDIA's driver knows no GPU"
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(first)
        return Gpu(pynvml.nvmlDeviceGetName(first), f"{major}.{minor}", pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        return f"the GPU cannot be asked ({error})"
    finally:
        pynvml.nvmlShutdown()


def _by_nvidia_smi() -> Gpu | str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "there is no NVIDIA driver: neither nvidia-ml-py nor nvidia-smi is installed"
    command = [program, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not answer"
    fields = [field.strip() for field in done.stdout.partition("\n")[0].split(",")]
    if done.returncode or len(fields) != len(_ASKED):
        said = (done.stdout + done.stderr).strip().partition("\n")[0]
        return f"nvidia-smi finds no GPU ({said})"
    return Gpu(*fields)


def check_gpu(gpu: Gpu | str, *, needed: bool) -> Check:
    """Say which GPU there is.

    Parameters
    ----------
    gpu
        What `find_gpu` returned.
    needed
        Whether something is to run on one.
    """
    if isinstance(gpu, Gpu):
        return ok("gpu", f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}")
    todo = "install the driver, and give the container the GPU (`--gpus`, nvidia.com/gpu)"
    return fail("gpu", gpu, todo) if needed else skip("gpu", gpu)


def check_tensorrt_plan(plan: Path, bundle: Bundle, gpu: Gpu | str) -> Iterator[Check]:
    """Say whether a plan is the bundle's, and this machine's.

    Parameters
    ----------
    plan
        The engine's file; its sidecar lies beside it.
    bundle
        That is to be served.
    gpu
        What `find_gpu` returned.

    Yields
    ------
    Check
        Of the files; then of the library and the GPU that load them, each where it is there.
    """
    try:
        sidecar = check_plan(plan, bundle.manifest)
    except BundleError as error:
        yield fail("plan", str(error))
        return
    yield ok("plan", f"built from {sidecar.onnx} of {sidecar.bundle}, as it was made")
    try:
        _, version = load(sidecar.library)
    except CommandError:
        # Triton brings its own library, and no Python package tells which.
        found = (
            f"{sidecar.library} is not installed for this Python, so the version that loads the plan is not known here"
        )
        yield skip("plan and library", found, f"Triton must have {sidecar.library} {sidecar.version}")
        version = sidecar.version
    else:
        yield _loads("plan and library", plan, bundle, Machine(version, sidecar.gpu or "", sidecar.compute_capability))
    if isinstance(gpu, Gpu):
        # The library has a line of its own.
        yield _loads("plan and gpu", plan, bundle, Machine(sidecar.version, gpu.name, gpu.compute_capability))


def _loads(name: str, plan: Path, bundle: Bundle, machine: Machine) -> Check:
    try:
        check_plan(plan, bundle.manifest, machine)
    except BundleError as error:
        return fail(name, str(error))
    return ok(name, f"built for this one ({machine.version}, {machine.gpu or 'any GPU'})")
