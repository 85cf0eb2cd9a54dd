"""Plans kept on a volume that machines share: built once for each bundle, GPU type and TensorRT."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad.errors import BundleError, CommandError
from lymphcad.plan import Machine, check_plan, sidecar_of
from lymphcad_export.plan.publish import PLAN, TIMING_CACHE, write_engines

if TYPE_CHECKING:
    from lymphcad.bundle import Bundle
    from lymphcad.plan import Sidecar
    from lymphcad_export.plan.builders import Builder

_OURS = {PLAN, sidecar_of(Path(PLAN)).name, TIMING_CACHE}


def cached_plan(
    bundle: Bundle,
    out: Path,
    cache: Path,
    builder: Builder,
    max_batch: int,
    command: str,
    timing_cache: Path | None = None,
) -> tuple[Sidecar, bool]:
    """Give a machine its plan out of the cache, where it is built first if there is none that is whole and fits.

    Machines with other GPUs, bundles or versions have folders of their own in the cache, so none replaces what another
    one reads; two that build the same at once keep the first.

    Parameters
    ----------
    bundle
        Whose CNN it is, in FP16.
    out
        The folder for the plan; an earlier plan in it is replaced.
    cache
        A folder, made if it is not there.
    builder
        TensorRT on this machine.
    max_batch, command, timing_cache
        As in `lymphcad_export.plan.publish.write_engines`.

    Returns
    -------
    tuple of Sidecar and bool
        Of the plan in `out`, and whether it was built now.

    Raises
    ------
    CommandError
        If `out` has something else in it, a folder cannot be written, or no plan can be built.
    BundleError
        If the bundle has no CNN in FP16.
    GoldenError
        If the plan is too far from ONNX Runtime; nothing is published then.
    """
    if builder.gpu is None:
        raise ValueError("a plan is cached for the GPU of a machine")
    if out.exists() and (not out.is_dir() or {one.name for one in out.iterdir()} - _OURS):
        raise CommandError(f"'{out}' has something else than a plan in it: name another folder")
    gpu = builder.gpu
    machine = Machine(builder.version, gpu.name, gpu.compute_capability)
    kind = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu.name} {gpu.compute_capability} {builder.version}")
    kept = cache / f"{bundle.digest[:16]}-{kind}-b{max_batch}"
    built = False
    try:
        if not _fits(kept, bundle, machine):
            shutil.rmtree(kept, ignore_errors=True)
            built = True
            try:
                write_engines(bundle, kept, builder, max_batch, command, timing_cache)
            except CommandError:
                if not _fits(kept, bundle, machine):  # else another machine was faster
                    raise
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            shutil.copytree(kept, beside, dirs_exist_ok=True)
            sidecar = check_plan(beside / PLAN, bundle.manifest, machine)
            shutil.rmtree(out, ignore_errors=True)
            beside.chmod(0o755)
            beside.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise CommandError(f"'{out}' cannot be written ({error.strerror}): name another folder") from None
    return sidecar, built


def _fits(folder: Path, bundle: Bundle, machine: Machine) -> bool:
    try:
        check_plan(folder / PLAN, bundle.manifest, machine)
    except BundleError:
        return False
    return True
