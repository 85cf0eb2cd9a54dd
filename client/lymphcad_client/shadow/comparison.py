"""What the pairs of answers come to: how often the call flips, and how far apart the probabilities are."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from lymphcad.errors import CommandError
from lymphcad_client.shadow.pairs import LINE, Closed, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad_client.shadow.pairs import Answer

BINS: Final = 10
"""Of the histograms, of equal width from 0 to 1."""
QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_LARGEST: Final = 10
_Z95: Final = 1.959963984540054


@dataclass
class Pairs:
    """What the files of one comparison hold, a node once.

    Attributes
    ----------
    first, second
        Of each pair.
    digests
        Of the inputs.
    heatmaps
        Differences, grey levels.
    repeated
        Pairs of an input that had one before, which are left out.
    errors
        Nodes without a second answer, by code.
    runs, closed
        How often the shadow was begun, and the last lines of the runs that ended.
    damaged
        Lines that are none, as a process leaves them that was killed while it wrote.
    """

    first: list[Answer] = field(default_factory=list)
    second: list[Answer] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    heatmaps: list[float] = field(default_factory=list)
    repeated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    closed: list[Closed] = field(default_factory=list)
    damaged: int = 0


def count_lines(paths: Sequence[Path]) -> int:
    """Return how many lines files have, to show how far reading is; raises as `read_pairs` does."""
    count = 0
    for path in paths:
        with _reading(path), path.open("rb") as file:
            count += sum(1 for _ in file)
    return count


def read_pairs(paths: Sequence[Path], advance: Callable[[], None] = lambda: None) -> Pairs:
    """Read what `lymphcad_client.shadow.observer.Shadow` wrote.

    Parameters
    ----------
    paths
        Files of the same two bundles.
    advance
        Called after each line.

    Returns
    -------
    Pairs
        In the order of the files.

    Raises
    ------
    CommandError
        If a file cannot be read or is of something else, or the pairs are of other bundles than one another.
    """
    pairs, met, bundles = Pairs(), set[str](), dict[tuple[str, str], None]()
    for path in paths:
        known = pairs.runs
        with _reading(path), path.open("rb") as file:
            for line in file:
                advance()
                if line.strip():
                    _take(pairs, line, met, bundles)
        if pairs.runs == known:
            raise CommandError(f"'{path}' holds no pairs of answers: name a file that was given with --shadow-out")
    if len(bundles) > 1:
        found = ", ".join(f"{first} and {second}" for first, second in bundles)
        raise CommandError(f"the pairs are of different bundles ({found}): compare files of the same two only")
    return pairs


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(f"'{path}' cannot be read ({error.strerror}): name a file of --shadow-out") from None


def _take(pairs: Pairs, line: bytes, met: set[str], bundles: dict[tuple[str, str], None]) -> None:
    try:
        value = LINE.validate_json(line)
    except ValidationError:
        pairs.damaged += 1
        return
    if isinstance(value, Opened):
        pairs.runs += 1
    elif isinstance(value, Closed):
        pairs.closed.append(value)
    elif value.second is None:
        pairs.errors[value.error or ""] += 1
    else:
        bundles[value.first.bundle, value.second.bundle] = None
        if value.input_sha256 in met:
            pairs.repeated += 1
            return
        met.add(value.input_sha256)
        pairs.first.append(value.first)
        pairs.second.append(value.second)
        pairs.digests.append(value.input_sha256)
        if value.heatmap_difference is not None:
            pairs.heatmaps.append(value.heatmap_difference)


def compared(pairs: Pairs) -> dict[str, Any]:
    """Return the figures of a report.

    Parameters
    ----------
    pairs
        Of one comparison.

    Returns
    -------
    dict of str to Any
        ``n``, ``repeated``, ``failed`` by code, ``skipped``, ``unanswered``, ``runs``, ``not_closed``, ``damaged``;
        and with at least one pair ``first`` and ``second`` (bundle, threshold, share called metastatic, histogram,
        latency), ``flips``, ``difference`` (second minus first), ``psi``, ``heatmap_difference`` and ``largest``.
    """
    counts = {
        "n": len(pairs.first),
        "repeated": pairs.repeated,
        "failed": dict(sorted(pairs.errors.items())),
        "skipped": sum(one.skipped for one in pairs.closed),
        "unanswered": sum(one.unanswered for one in pairs.closed),
        "runs": pairs.runs,
        "not_closed": pairs.runs - len(pairs.closed),
        "damaged": pairs.damaged,
    }
    if not pairs.first:
        return counts
    first, second = (np.array([one.probability for one in side]) for side in (pairs.first, pairs.second))
    calls = [[one.call == "metastatic" for one in side] for side in (pairs.first, pairs.second)]
    difference = second - first
    histograms = [np.histogram(side, BINS, (0.0, 1.0))[0] for side in (first, second)]
    largest = np.argsort(-np.abs(difference), kind="stable")[:_LARGEST]
    return {
        **counts,
        "first": _side(pairs.first, calls[0], histograms[0]),
        "second": _side(pairs.second, calls[1], histograms[1]),
        "flips": {
            "to_metastatic": proportion(after and not before for before, after in zip(*calls, strict=True)),
            "to_benign": proportion(before and not after for before, after in zip(*calls, strict=True)),
            "both": proportion(before != after for before, after in zip(*calls, strict=True)),
        },
        "difference": {
            "mean": float(difference.mean()),
            "mean_absolute": float(np.abs(difference).mean()),
            "quantiles": {
                f"{q:g}": float(value) for q, value in zip(QUANTILES, np.quantile(difference, QUANTILES), strict=True)
            },
        },
        "psi": psi(*histograms),
        "heatmap_difference": {
            "n": len(pairs.heatmaps),
            "mean": float(np.mean(pairs.heatmaps)) if pairs.heatmaps else None,
            "largest": max(pairs.heatmaps, default=None),
        },
        "largest": [
            {
                "input_sha256": pairs.digests[at],
                "first": float(first[at]),
                "second": float(second[at]),
                "flipped": calls[0][at] != calls[1][at],
            }
            for at in largest
        ],
    }


def proportion(found: Iterable[bool]) -> dict[str, Any]:
    """Return how many are true, of how many, and the 95 % score interval of their share (Wilson, JASA 1927;22:209).

    Parameters
    ----------
    found
        At least one.

    Returns
    -------
    dict of str to Any
        ``count``, ``n``, ``share``, ``ci95``.
    """
    values = list(found)
    count, n = sum(values), len(values)
    share, z2 = count / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 one limit is exactly there, which rounding misses.
    low, high = 0.0 if count == 0 else middle - half, 1.0 if count == n else middle + half
    return {"count": count, "n": n, "share": share, "ci95": [low, high]}


def psi(expected: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Return the population stability index of two histograms: the sum of (q - p) ln(q / p), 0 if they are alike.

    Half a node is added to each bin, so that an empty one does not make it infinite.

    Parameters
    ----------
    expected, found
        int [bins], counts.

    Returns
    -------
    float
        Not negative.
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, found))
    return float(((q - p) * np.log(q / p)).sum())


def _side(answers: list[Answer], calls: list[bool], histogram: npt.NDArray[np.int64]) -> dict[str, Any]:
    ms = np.array([one.ms for one in answers])
    return {
        "bundle": answers[0].bundle,
        "threshold": answers[0].threshold,
        "metastatic": proportion(calls),
        "histogram": histogram.tolist(),
        "ms": {"median": float(np.median(ms)), "p95": float(np.quantile(ms, 0.95))},
    }
