"""The paper's protocol: train several networks, choose one on validation, then look at test, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad_train.comparison import RUNS, contents_of, now
from lymphcad_train.gallery import gallery
from lymphcad_train.jobs import Job, run_jobs
from lymphcad_train.networks import ARCHITECTURES, EDGE, PAPER, CamNetwork
from lymphcad_train.options import command_of
from lymphcad_train.processes import world_size
from lymphcad_train.record import evaluate_test
from lymphcad_train.report import write_report
from lymphcad_train.run import RUN, RunRecord, Started, check_started, read_record, write_text
from lymphcad_train.weights import IMAGENET, NONE, DownloadError, describe, start_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lymphcad_train.comparison import Told
    from lymphcad_train.settings import Settings

SELECTION = "selection.json"
_GROUPS = {"paper": list(PAPER), "edge": list(EDGE), "all": list(ARCHITECTURES)}


def architectures(names: str) -> list[str]:
    """Return the networks that ``--archs`` names: ``paper``, ``edge``, ``all``, or names with commas between them.

    Parameters
    ----------
    names
        The option.

    Returns
    -------
    list of str
        None twice.

    Raises
    ------
    CommandError
        If one is unknown.
    """
    found = _GROUPS.get(names) or [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in found if name not in ARCHITECTURES]
    if unknown or not found:
        raise CommandError(
            f"--archs names no network '{', '.join(unknown)}': give {', '.join(_GROUPS)}, or some of"
            f" {','.join(ARCHITECTURES)}"
        )
    return list(dict.fromkeys(found))


def weights_of(weights: str, names: Sequence[str]) -> dict[str, str]:
    """Return what each network starts from, after all of it has been looked at: no epoch is spent before.

    Parameters
    ----------
    weights
        ``imagenet``, ``none``, or a folder with ``ARCHITECTURE.safetensors`` or ``.pth`` for each.
    names
        The networks.

    Returns
    -------
    dict of str to str
        As `lymphcad_train.weights.start_from` takes it.

    Raises
    ------
    CommandError
        One error that names every network whose weights cannot be had; after a download that failed, which takes
        most of a minute, the first only.
    """
    found = {name: weights if weights in (IMAGENET, NONE) else _in_folder(Path(weights), name) for name in names}
    problems: dict[str, CommandError] = {}
    for name in names:
        problem = _problem(name, found[name])
        if isinstance(problem, DownloadError):
            raise CommandError(f"nothing was trained, and no further download was tried: {problem}")
        if problem is not None:
            problems[name] = problem
    if problems:
        raise CommandError(
            f"the weights of {', '.join(problems)} cannot be had, and nothing was trained; of the first:"
            f" {next(iter(problems.values()))}"
        )
    return found


def compare(
    cohort: Path,
    out: Path,
    settings: dict[str, Settings],
    *,
    weights: dict[str, str],
    images: Sequence[Path],
    resume: bool,
    at_once: int,
    console: Console,
    told: Told,
) -> dict[str, Any]:
    """Train the networks, choose the one with the highest validation AUROC, evaluate all on test, write the report.

    Parameters
    ----------
    cohort
        The table.
    out
        The comparison's folder; made, unless `resume`.
    settings, weights
        Of each network.
    images
        Folders in which SOP Instance UIDs of the table are looked for.
    resume
        Go on where it was interrupted.
    at_once
        How many networks are trained side by side.
    console
        For the progress.
    told
        By the user, for the report.

    Returns
    -------
    dict of str to Any
        The comparison, as `lymphcad_train.report` takes it.

    Raises
    ------
    CommandError
        If nothing can be trained, or networks, options or cohort of a resumed comparison are other ones than before.
    """
    if out.exists() and not resume:
        raise CommandError(f"'{out}' exists: name a new folder with --out, or go on with --resume")
    if world_size() > 1:
        raise CommandError("torchrun starts `lymphcad train`, a network at a time: compare the runs without it")
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    todo = []
    for name, chosen in settings.items():
        run = out / RUNS / name
        command = command_of(cohort, run, chosen, weights[name])
        if not (run / RUN).exists():
            todo.append(Job(cohort, run, images, chosen, weights[name], command))
            continue
        check_started(run, Started(cohort_sha256=sha256(cohort), settings=chosen))
    failed: dict[str, str] = {}
    for name, said in run_jobs(todo, at_once, console):
        if said is not None:
            failed[name] = said
            console.print(f"{name} failed: {said}", markup=False)
    records = {name: read_record(out / RUNS / name) for name in settings if name not in failed}
    selection = _select(out, records)
    for name in records:
        if "test" not in records[name].metrics:
            records[name] = evaluate_test(out / RUNS / name)
    contents = contents_of(cohort, out, settings, records, failed, selection, told)
    write_report(contents, gallery(out / RUNS / selection["architecture"]), out)
    return contents


def _in_folder(folder: Path, name: str) -> str:
    """Return a network's file in a folder of weights, whether it is there or not."""
    checkpoint = folder / f"{name}.pth"
    return str(checkpoint if checkpoint.is_file() else folder / f"{name}.safetensors")


def _problem(name: str, weights: str) -> CommandError | None:
    """Load a network's first weights, and return what is wrong with them."""
    try:
        describe(weights)
        start_from(CamNetwork(name), weights)
    except CommandError as error:
        return error
    return None


def _select(out: Path, records: dict[str, RunRecord]) -> dict[str, Any]:
    """Choose, and write the choice down before test is touched; a choice that was made stands."""
    path = out / SELECTION
    validation = {name: record.metrics["validation"]["auroc"] for name, record in records.items()}
    if path.exists():
        made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if made["validation_auroc"] != validation:
            raise CommandError(
                "the network was chosen among others before, and test has been looked at: start again in a new folder"
            )
        return made
    if not validation:
        raise CommandError("no network was trained to the end: see the sentences above")
    best = max(
        validation, key=lambda name: (validation[name], -records[name].metrics["validation"]["negative_log_likelihood"])
    )
    made = {"architecture": best, "when": now(), "validation_auroc": validation}
    write_text(path, json.dumps(made, indent=2) + "\n")
    return made
