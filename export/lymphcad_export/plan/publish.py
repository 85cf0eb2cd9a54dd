"""Build engines of a bundle into a folder that exists only when all of them are there and compared."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad.plan import Profile, Sidecar, sidecar_of
from lymphcad_export.plan.build import build_engine

if TYPE_CHECKING:
    from lymphcad.bundle import Bundle
    from lymphcad_export.plan.builders import Builder

PLAN = "cnn.plan"
TIMING_CACHE = "cnn.timing"


def write_engines(
    bundle: Bundle,
    out: Path,
    builder: Builder,
    max_batch: int,
    command: str,
    timing_cache: Path | None = None,
) -> dict[str, Sidecar]:
    """Write ``cnn.plan``, or ``cnn.sm86.engine`` and the like, each with its sidecar.

    Parameters
    ----------
    bundle
        Whose CNN it is, in FP16.
    out
        A folder that does not exist or is empty.
    builder
        What builds.
    max_batch
        Largest B.
    command
        Which repeats it.
    timing_cache
        Of an earlier build, for TensorRT.

    Returns
    -------
    dict of str to Sidecar
        One for each engine, by the name of its file.

    Raises
    ------
    CommandError
        If `out` has something in it or cannot be written, or an engine cannot be built.
    BundleError
        If the bundle has no CNN in FP16.
    GoldenError
        If an engine is too far from ONNX Runtime; nothing is published then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"'{out}' is not an empty folder: name a new one for the engines")
    onnx = bundle.cnn("fp16")
    gpu, size = builder.gpu, bundle.manifest.preprocess.size
    made: dict[str, Sidecar] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A kill or a full disk leaves a folder that no one takes for a finished one.
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            cache = None if timing_cache is None else timing_cache.read_bytes()
            for target in builder.targets:
                file = beside / (PLAN if target is None else f"cnn.{target}.engine")
                engine = build_engine(
                    builder.library, onnx.read_bytes(), size, max_batch, capability=target, timing_cache=cache
                )
                comparison = None if builder.compare is None else builder.compare(engine)
                file.write_bytes(engine.content)
                if engine.timing_cache is not None:
                    (beside / TIMING_CACHE).write_bytes(engine.timing_cache)
                smallest, usual, largest = engine.profile
                made[file.name] = Sidecar(
                    library=builder.name,
                    version=builder.version,
                    gpu=gpu.name if gpu else None,
                    compute_capability=gpu.compute_capability if gpu else _dotted(target or ""),
                    driver=gpu.driver if gpu else None,
                    plan_sha256=sha256(file),
                    onnx=onnx.name,
                    onnx_sha256=sha256(onnx),
                    bundle=bundle.label,
                    bundle_sha256=bundle.digest,
                    max_batch=max_batch,
                    profile=Profile(min=smallest, opt=usual, max=largest),
                    flags=engine.flags,
                    comparison=comparison,
                    command=command,
                )
                sidecar_of(file).write_text(made[file.name].model_dump_json(indent=2) + "\n", encoding="utf-8")
            beside.chmod(0o755)
            beside.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise CommandError(f"'{out}' cannot be written ({error.strerror}): name another folder") from None
    return made


def _dotted(capability: str) -> str:
    """Return ``8.6`` for ``sm86``, ``12.0`` for ``sm120``."""
    digits = capability.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1:]}"
