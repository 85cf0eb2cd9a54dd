"""The GPU of this machine, as TensorRT and torch see it."""

from __future__ import annotations

from dataclasses import dataclass

from lymphcad.errors import CommandError


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes
    ----------
    name
        E.g. ``NVIDIA L4``.
    compute_capability
        E.g. ``8.9``.
    driver
        Version of NVIDIA's driver.
    """

    name: str
    compute_capability: str
    driver: str


def this_gpu() -> Gpu:
    """Return the first GPU that CUDA shows to this process.

    Raises
    ------
    CommandError
        If there is none, or torch cannot use it; with what to do.
    """
    import torch

    if not torch.cuda.is_available():
        raise CommandError(
            "torch finds no NVIDIA GPU, and a plan is built and compared with ONNX Runtime on the GPU type that serves"
            " it: run this on such a machine, with a torch that was built for CUDA, or build TensorRT-RTX engines with"
            " --rtx"
        )
    try:
        import pynvml
    except ImportError:
        raise CommandError(
            "the driver's version is read with nvidia-ml-py, which is not installed: pip install 'lymphcad[tensorrt]'"
        ) from None
    major, minor = torch.cuda.get_device_capability()
    pynvml.nvmlInit()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
    return Gpu(torch.cuda.get_device_name(), f"{major}.{minor}", driver)
