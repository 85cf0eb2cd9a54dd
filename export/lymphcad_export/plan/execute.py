"""Run an engine on this machine's GPU. No TensorRT was to be had: this code has never run (docs/plan.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lymphcad.errors import CommandError
from lymphcad.tensorrt_library import first_line, keep_log

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lymphcad.tensorrt_library import Library

OUTPUTS = ("LOGITS", "MAPS")


def run_engine(library: Library, content: bytes, crops: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Run one batch of crops.

    Parameters
    ----------
    library
        TensorRT.
    content
        The serialized engine.
    crops
        float32 [B, 1, S, S], contiguous.

    Returns
    -------
    dict of str to ndarray
        LOGITS float32 [B, 2] and MAPS float32 [B, 2, h, w].

    Raises
    ------
    CommandError
        If the engine cannot be loaded or run, or has other inputs and outputs.
    """
    import torch

    logger, log = keep_log(library)
    runtime = library.Runtime(logger)  # outlives the engine
    engine = runtime.deserialize_cuda_engine(content)
    context = None if engine is None else engine.create_execution_context()
    if engine is None or context is None:
        raise _failed("loaded", log)
    if any(engine.get_tensor_dtype(name) != library.DataType.FLOAT for name in ("CROP", *OUTPUTS)):
        raise CommandError("the engine's inputs and outputs are not float32: export the bundle again")
    crop = torch.from_numpy(crops).cuda()
    ready = context.set_input_shape("CROP", tuple(crop.shape)) and context.set_tensor_address("CROP", crop.data_ptr())
    outputs: dict[str, Any] = {}
    for name in OUTPUTS:
        shape = context.get_tensor_shape(name)
        # An output that the engine leaves unwritten shows as NaN.
        outputs[name] = torch.full([shape[axis] for axis in range(len(shape))], torch.nan, device="cuda")
        ready = ready and context.set_tensor_address(name, outputs[name].data_ptr())
    torch.cuda.synchronize()  # the copies and fills above are on another stream
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    if not ready or not context.execute_async_v3(stream.cuda_stream):
        raise _failed("run", log)
    stream.synchronize()
    return {name: value.cpu().numpy() for name, value in outputs.items()}


def _failed(what: str, log: list[str]) -> CommandError:
    return CommandError(
        f"the engine was built and cannot be {what} ({first_line(log)}): nothing was published, build it again"
    )
