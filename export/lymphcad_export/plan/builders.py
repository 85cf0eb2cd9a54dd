"""What builds: TensorRT on this machine's GPU, or TensorRT-RTX ahead of time for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.tensorrt_library import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from lymphcad.bundle import Bundle
    from lymphcad.plan import Comparison
    from lymphcad.tensorrt_library import Library, Name
    from lymphcad_export.plan.build import Engine
    from lymphcad_export.plan.gpu import Gpu


@dataclass(frozen=True)
class Builder:
    """What builds engines.

    Attributes
    ----------
    name, library, version
        Import name, see `lymphcad.tensorrt_library.load`.
    targets
        What the engines are for, e.g. ``sm86``; None is this machine's GPU.
    gpu
        This machine's; None ahead of time.
    compare
        Compares an engine with ONNX Runtime; None where nothing can run it.
    """

    name: Name
    library: Library
    version: str
    targets: tuple[str | None, ...] = (None,)
    gpu: Gpu | None = None
    compare: Callable[[Engine], Comparison] | None = None


def ahead(targets: tuple[str, ...]) -> Builder:
    """Return TensorRT-RTX, building for compute capabilities such as ``sm86``.

    Raises
    ------
    CommandError
        If it is not installed.
    """
    library, version = load("tensorrt_rtx")
    return Builder("tensorrt_rtx", library, version, targets)


def here(bundle: Bundle) -> Builder:
    """Return TensorRT on this machine's GPU, where each engine is compared with ONNX Runtime.

    Raises
    ------
    CommandError
        If TensorRT or the GPU is missing.
    """
    library, version = load("tensorrt")

    from lymphcad_export.plan.comparison import compare
    from lymphcad_export.plan.execute import run_engine
    from lymphcad_export.plan.gpu import this_gpu

    def agree(engine: Engine) -> Comparison:
        batches = tuple(shape[0] for shape in engine.profile)
        return compare(lambda crops: run_engine(library, engine.content, crops), bundle, batches)

    return Builder("tensorrt", library, version, gpu=this_gpu(), compare=agree)
