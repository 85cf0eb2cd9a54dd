"""``lymphcad plan``."""

from pathlib import Path
from typing import Annotated

import typer

_RTX = "Build TensorRT-RTX engines ahead of time, without a GPU, for these: sm86,sm89,sm120."
_CACHE = "Folder of plans that machines share: take this machine's from there, and build it only if there is none."
_TIMING = "The cnn.timing of an earlier plan: what it measured on this GPU type is not measured again."


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle with the precision fp16.")],
    out: Annotated[Path, typer.Option(help="A new folder for the plan.")],
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most crops in one request.")] = 64,
    rtx: Annotated[str | None, typer.Option(help=_RTX)] = None,
    timing_cache: Annotated[Path | None, typer.Option(help=_TIMING)] = None,
    cache: Annotated[Path | None, typer.Option(help=_CACHE)] = None,
) -> None:
    """Build the TensorRT plan of a bundle's CNN on this machine's GPU, or TensorRT-RTX engines for other GPUs."""
    from rich.console import Console

    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad_export.plan.builders import ahead, here
    from lymphcad_export.plan.cache import cached_plan
    from lymphcad_export.plan.publish import write_engines

    if rtx is not None and timing_cache is not None:
        raise CommandError("TensorRT-RTX measures nothing ahead of time: leave --timing-cache or --rtx out")
    if rtx is not None and cache is not None:
        raise CommandError("--cache has plans of machines with a GPU, and --rtx builds for others: leave one out")
    if timing_cache is not None and not timing_cache.is_file():
        raise CommandError(f"there is no timing cache '{timing_cache}': name the cnn.timing of an earlier plan")
    checked = Bundle(bundle)
    checked.cnn("fp16")  # before anything is loaded
    command = f"lymphcad plan {bundle.name} --out {out.name} --max-batch {max_batch}"
    if rtx is not None:
        targets = tuple(dict.fromkeys(part.strip().lower() for part in rtx.split(",")))
        builder = ahead(targets)
        command += f" --rtx {','.join(targets)}"
    else:
        builder = here(checked)
    if timing_cache is not None:
        command += f" --timing-cache {timing_cache.name}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if cache is not None:
        sidecar, built = cached_plan(checked, out, cache, builder, max_batch, command, timing_cache)
        console.print(
            f"cnn.plan is in {out}, built {'now' if built else 'earlier'} by {sidecar.library} {sidecar.version} for"
            f" {sidecar.gpu}."
        )
        return
    for name, sidecar in write_engines(checked, out, builder, max_batch, command, timing_cache).items():
        found = sidecar.comparison
        console.print(
            f"{name} is in {out}, built by {sidecar.library} {sidecar.version} for compute capability"
            f" {sidecar.compute_capability}, "
            + (
                "never executed."
                if found is None
                else f"at most {found.probability_max:.2g} from ONNX Runtime's probabilities on {found.crops} crops."
            )
        )
