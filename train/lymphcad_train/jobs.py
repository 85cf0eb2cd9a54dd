"""Several networks trained one after the other, or side by side in processes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from rich.console import Console

from lymphcad.errors import CommandError
from lymphcad_train.fit import train
from lymphcad_train.run import SETTINGS
from lymphcad_train.training import DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lymphcad_train.settings import Settings


@dataclass(frozen=True)
class Job:
    """The training of one network, as `lymphcad_train.fit.train` takes it.

    Attributes
    ----------
    cohort, run, images
        The table, the run's folder, and where SOP Instance UIDs of the table are looked for.
    settings, weights, command
        Of the network.
    """

    cohort: Path
    run: Path
    images: Sequence[Path]
    settings: Settings
    weights: str
    command: str


def run_jobs(jobs: Sequence[Job], at_once: int, console: Console) -> Iterator[tuple[str, str | None]]:
    """Train, going on with what was interrupted.

    Side by side, small networks fill the cores of a machine better than one after the other: a network of many small
    layers keeps few cores busy.

    Parameters
    ----------
    jobs
        The networks.
    at_once
        How many of them at the same time; each gets an equal share of the cores.
    console
        For the progress of a single one; several write a line an epoch to the standard error.

    Yields
    ------
    tuple of str and str or None
        As they end: the architecture, and why its loss is not finite; None if it was trained to the end.

    Raises
    ------
    CommandError
        As `lymphcad_train.fit.train`; if a process was killed.
    """
    if at_once == 1:
        for number, job in enumerate(jobs, start=1):
            console.print(f"{job.settings.architecture} ({number} of {len(jobs)})")
            yield _run(job, console)
        return
    threads = max(joblib.cpu_count() // at_once, 1)
    with joblib.parallel_config("loky", inner_max_num_threads=threads):
        side_by_side = joblib.Parallel(n_jobs=at_once, pre_dispatch=at_once, return_as="generator_unordered")
        try:
            yield from side_by_side(joblib.delayed(_run)(job) for job in jobs)
        except TerminatedWorkerError:
            raise CommandError(
                "a process that trained a network was killed, as a machine does that has no memory left: give fewer"
                " --jobs, and go on with --resume"
            ) from None
        finally:
            get_reusable_executor().shutdown(kill_workers=True)  # else they keep their memory for minutes


def _run(job: Job, console: Console | None = None) -> tuple[str, str | None]:
    console = console or Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=False)
    try:
        train(
            job.cohort,
            job.run,
            job.settings,
            weights=job.weights,
            images=job.images,
            resume=(job.run / SETTINGS).exists(),
            console=console,
            command=job.command,
        )
    except DivergedError as error:
        return job.settings.architecture, str(error)
    return job.settings.architecture, None
