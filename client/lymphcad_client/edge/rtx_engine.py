"""An engine of TensorRT-RTX on this machine's GPU. None of this has run on one (docs/plan.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from lymphcad.errors import CommandError
from lymphcad.tensorrt_library import first_line, keep_log

if TYPE_CHECKING:
    from pathlib import Path

    import tensorrt as trt

    from lymphcad.tensorrt_library import Library
    from lymphcad_client.edge.cuda import Gpu, Memory

ENGINES = "cnn.sm*.engine"
"""What ``lymphcad plan --rtx`` calls them."""
INSTEAD = "or take --runner openvino"


class _JustInTime(Protocol):
    """What TensorRT-RTX's configuration of a context has beyond TensorRT's."""

    dynamic_shapes_kernel_specialization_strategy: object


@dataclass(frozen=True)
class Opened:
    """An engine on the GPU.

    Attributes
    ----------
    context
        Which executes it.
    config, engine, runtime
        What it was made with, which must live as long; in the order in which they go.
    log
        What the library says meanwhile.
    """

    context: trt.IExecutionContext
    config: object
    engine: object
    runtime: object
    log: list[str]


def check_gpu(library: Library, version: str, gpu: Gpu) -> None:
    """Refuse a GPU for which no engine can be built.

    Parameters
    ----------
    library, version
        TensorRT-RTX.
    gpu
        This machine's.

    Raises
    ------
    CommandError
        With those for which there can be one.
    """
    known = [name.lower() for name in cast("Any", library).ComputeCapability.__members__ if name.startswith("SM")]
    if gpu.target not in known:
        raise CommandError(
            f"TensorRT-RTX {version} runs on {', '.join(known)}, and this machine's {gpu.name} is {gpu.target}: serve"
            " the bundle from Triton with a TensorRT plan, which `lymphcad plan` builds on such a GPU,"
            f" {INSTEAD}"
        )


def choose_engine(engines: Path, gpu: Gpu) -> Path:
    """Return the engine for a GPU.

    Parameters
    ----------
    engines
        The folder that ``lymphcad plan --rtx`` wrote, or one of its engines, which is taken as it is.
    gpu
        Which runs it.

    Returns
    -------
    Path
        Not yet checked.

    Raises
    ------
    CommandError
        If there is none; with those that there are.
    """
    wanted = "name the folder that `lymphcad plan --rtx` wrote, or one of its engines"
    if engines.is_file():
        if engines.suffix != ".engine":
            raise CommandError(f"'{engines}' is no engine of TensorRT-RTX: {wanted}")
        return engines
    if not engines.is_dir():
        raise CommandError(f"there is no '{engines}': {wanted}")
    found = {file.name.split(".")[1]: file for file in engines.glob(ENGINES)}
    if not found:
        raise CommandError(f"'{engines}' has no engine {ENGINES}: {wanted}")
    if gpu.target not in found:
        there = ", ".join(sorted(found, key=lambda target: (len(target), target)))
        raise CommandError(
            f"'{engines}' has engines for {there} only, and this machine's {gpu.name} needs {gpu.target}: build one"
            f" with `lymphcad plan --rtx {gpu.target}`, {INSTEAD}"
        )
    return found[gpu.target]


def open_engine(library: Library, engine: Path) -> Opened:
    """Load an engine on the GPU.

    Parameters
    ----------
    library
        TensorRT-RTX.
    engine
        That was checked.

    Raises
    ------
    CommandError
        If it cannot be loaded, or has other inputs and outputs.
    """
    logger, log = keep_log(library)
    runtime = library.Runtime(logger)
    loaded = runtime.deserialize_cuda_engine(engine.read_bytes())
    if loaded is None:
        raise _not_loaded(engine, log)
    if any(loaded.get_tensor_dtype(name) != library.DataType.FLOAT for name in ("CROP", "LOGITS", "MAPS")):
        raise CommandError(
            f"the inputs and outputs of '{engine}' are not float32: build it again with `lymphcad plan --rtx`"
        )
    config = loaded.create_runtime_config()
    # Else the golden inputs, first of all, would check kernels that others replace while scoring goes on.
    eager = cast("Any", library).DynamicShapesKernelSpecializationStrategy.EAGER
    cast("_JustInTime", config).dynamic_shapes_kernel_specialization_strategy = eager
    context = loaded.create_execution_context(runtime_config=config)
    if context is None:
        raise _not_loaded(engine, log)
    return Opened(context, config, loaded, runtime, log)


def execute(
    context: trt.IExecutionContext, crops: tuple[int, ...], outputs: dict[str, tuple[int, ...]], memory: Memory
) -> bool:
    """Have an engine compute, after what is on the stream already.

    Parameters
    ----------
    context
        Of the engine.
    crops
        Shape of CROP, [B, 1, S, S].
    outputs
        Shapes that LOGITS and MAPS must have.
    memory
        With a buffer for each.

    Returns
    -------
    bool
        Whether it was begun. It is not if an output has another shape than its buffer.
    """
    if not context.set_input_shape("CROP", crops):
        return False
    for name, expected in outputs.items():
        shape = context.get_tensor_shape(name)
        if tuple(shape[axis] for axis in range(len(shape))) != expected:
            return False
    if not all(context.set_tensor_address(name, address) for name, address in memory.addresses.items()):
        return False
    return bool(context.execute_async_v3(memory.stream))


def _not_loaded(engine: Path, log: list[str]) -> CommandError:
    return CommandError(
        f"the engine '{engine}' cannot be loaded ({first_line(log)}): close what else uses the GPU's memory, build it"
        f" again with `lymphcad plan --rtx`, {INSTEAD}"
    )
