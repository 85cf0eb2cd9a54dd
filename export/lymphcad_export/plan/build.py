"""A strongly typed ONNX file to an engine, by TensorRT on this machine's GPU or by TensorRT-RTX for another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from lymphcad.errors import CommandError
from lymphcad.tensorrt_library import first_line, keep_log

if TYPE_CHECKING:
    import tensorrt as trt

    from lymphcad.tensorrt_library import Library

USUAL_BATCH = 16
"""What an engine is tuned for, if its largest batch is not smaller."""


@dataclass(frozen=True)
class Engine:
    """A serialized engine.

    Attributes
    ----------
    content
        The plan's file.
    profile
        Smallest, usual and largest shape of CROP, [B, 1, S, S].
    flags
        The builder's, by name.
    timing_cache
        Of this build and of the one that it started from; None ahead of time.
    """

    content: bytes
    profile: tuple[tuple[int, int, int, int], ...]
    flags: tuple[str, ...]
    timing_cache: bytes | None


class _AheadOfTime(Protocol):
    """What TensorRT-RTX's builder configuration has beyond TensorRT's."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: object, index: int) -> bool: ...


def build_engine(
    library: Library,
    onnx: bytes,
    size: int,
    max_batch: int,
    *,
    capability: str | None = None,
    timing_cache: bytes | None = None,
) -> Engine:
    """Build an engine from CROP float32 [B, 1, S, S] to LOGITS and MAPS in float32.

    Parameters
    ----------
    library
        Which builds.
    onnx
        The graph. Its precisions are the engine's: the network is strongly typed.
    size
        S, pixels.
    max_batch
        Largest B.
    capability
        For TensorRT-RTX: the compute capability to build for, e.g. ``sm86``; None for this machine's GPU.
    timing_cache
        Of an earlier build by the same TensorRT on the same GPU; None to measure everything. For TensorRT-RTX it has
        no meaning: that measures nothing ahead of time, and chooses its kernels where the engine runs.

    Returns
    -------
    Engine
        Never executed yet.

    Raises
    ------
    CommandError
        If the library cannot read the graph, build for `capability`, use the timing cache or build the engine.
    """
    logger, log = keep_log(library)
    builder = library.Builder(logger)
    # TensorRT 11 and TensorRT-RTX ignore the flag, for they know no other kind of network.
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise CommandError(f"the CNN's graph cannot be read ({first_line(errors)}): export the bundle again")
    config = builder.create_builder_config()
    if capability is None:
        _start_timing(config, timing_cache)
    else:
        _set_capability(library, config, capability)
    profile = builder.create_optimization_profile()
    shapes = [(batch, 1, size, size) for batch in (1, min(USUAL_BATCH, max_batch), max_batch)]
    smallest, usual, largest = (library.Dims4(*shape) for shape in shapes)
    profile.set_shape("CROP", smallest, usual, largest)
    if config.add_optimization_profile(profile) < 0:
        raise CommandError(
            f"the CNN's graph takes no CROP of {shapes[-1]} ({first_line(log)}): export the bundle again"
        )
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise CommandError(
            f"no engine could be built ({first_line(log)}): lower --max-batch if memory is short, else try another"
            " version"
        )
    flags = library.BuilderFlag.__members__
    return Engine(
        bytes(content),
        tuple(shapes),
        tuple(sorted(name for name in flags if config.get_flag(flags[name]))),
        bytes(config.get_timing_cache().serialize()) if capability is None else None,
    )


def _set_capability(library: Library, config: trt.IBuilderConfig, capability: str) -> None:
    members: dict[str, object] = cast("Any", library).ComputeCapability.__members__
    # CURRENT would be this machine's GPU.
    target = None if capability == "current" else members.get(capability.upper())
    if target is not None:
        ahead = cast("_AheadOfTime", config)
        ahead.num_compute_capabilities = 1
        if ahead.set_compute_capability(target, 0):
            return
    known = sorted((name.lower() for name in members if name.startswith("SM")), key=lambda name: int(name[2:]))
    raise CommandError(
        f"TensorRT-RTX builds no engine for '{capability}': choose among {', '.join(known)}, or build a TensorRT plan"
        " on such a GPU, without --rtx"
    )


def _start_timing(config: trt.IBuilderConfig, timing_cache: bytes | None) -> None:
    cache = config.create_timing_cache(timing_cache or b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise CommandError(
            "the timing cache is damaged, or of another TensorRT or GPU: leave --timing-cache out, and take the one"
            " that this build writes for the next"
        )
