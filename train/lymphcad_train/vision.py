"""Import timm where torchvision's compiled operators do not load.

timm imports torchvision, whose wheel registers fake kernels for ``nms`` at import and fails if its compiled library,
built for CUDA, could not load beside a CPU build of torch. Defining the schemas first lets both import; the networks
here never call these operators.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES: list[torch.library.Library] = []


def _define_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _LIBRARIES:
        return
    compiled = list(Path(spec.origin).parent.glob("_C*.so"))
    for file in compiled:
        try:
            torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)  # an unreferenced library takes its definitions with it


_define_missing_operators()

import timm  # noqa: E402 - only once the operators are defined

__all__ = ["timm"]
