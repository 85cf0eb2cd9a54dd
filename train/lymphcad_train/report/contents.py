"""What a comparison holds: the contract between ``lymphcad compare`` and its report.

A figure that could not be had is None and is printed as a dash; ``cannot`` says why. Keys that are not named here are
kept in ``comparison.json`` and shown nowhere.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from lymphcad.bundle import Preprocess

Interval = tuple[float | None, float | None]
"""Lower and upper end of a 95 % interval."""


class _Contents(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Bin(_Contents):
    """The images whose probabilities lie in one bin of the reliability plot."""

    mean_probability: float | None = None
    share_metastatic: float | None = None
    n: int = 0


class Confusion(_Contents):
    """Calls against labels at the threshold, images."""

    tp: int
    fp: int
    tn: int
    fn: int


class SizeGroup(_Contents):
    """The nodes of a range of diameters; `group` is its name, such as "up to 10 mm"."""

    group: str
    n: int | None = None
    positives: int | None = None
    auroc: float | None = None
    auroc_ci95: Interval | None = None
    sensitivity: float | None = None
    sensitivity_ci95: Interval | None = None
    specificity: float | None = None
    specificity_ci95: Interval | None = None


class WithSize(_Contents):
    """Network and diameter together; `above_size` and `p_against_size` compare that with diameter alone."""

    auroc: float | None = None
    auroc_ci95: Interval | None = None
    above_size: float | None = None
    above_size_ci95: Interval | None = None
    p_against_size: float | None = None


class Evaluation(_Contents):
    """The figures of one part, as ``lymphcad_train.statistics.evaluate`` returns them.

    Attributes
    ----------
    auroc_ci95
        Of a bootstrap over patients.
    auroc_ci95_delong
        DeLong's.
    ece
        Expected calibration error.
    roc
        False positive rate and true positive rate of each point, from (0, 0) to (1, 1).
    size_roc
        The same of diameter alone; drawn as the reference if it is given.
    lesion
        The same figures a lesion.
    cannot
        One sentence for each figure that could not be had.
    """

    n: int | None = None
    patients: int | None = None
    positives: int | None = None
    negatives: int | None = None
    auroc: float | None = None
    auroc_ci95: Interval | None = None
    auroc_ci95_delong: Interval | None = None
    sensitivity: float | None = None
    sensitivity_ci95: Interval | None = None
    specificity: float | None = None
    specificity_ci95: Interval | None = None
    accuracy: float | None = None
    accuracy_ci95: Interval | None = None
    ppv: float | None = None
    ppv_ci95: Interval | None = None
    npv: float | None = None
    npv_ci95: Interval | None = None
    confusion: Confusion | None = None
    threshold: float | None = None
    negative_log_likelihood: float | None = None
    ece: float | None = None
    brier: float | None = None
    reliability: list[Bin] | None = None
    roc: list[tuple[float, float]] | None = None
    size_roc: list[tuple[float, float]] | None = None
    size_baseline_auroc: float | None = None
    size_baseline_auroc_ci95: Interval | None = None
    above_size: float | None = None
    above_size_ci95: Interval | None = None
    p_against_size: float | None = None
    with_size: WithSize | None = None
    by_size: list[SizeGroup] | None = None
    auroc_lesion: float | None = None
    auroc_lesion_ci95: Interval | None = None
    size_baseline_auroc_lesion: float | None = None
    size_baseline_auroc_lesion_ci95: Interval | None = None
    lesion: Evaluation | None = None
    cannot: list[str] | None = None


class Network(_Contents):
    """A network of the comparison; `failed` is the sentence that says why it has no figures."""

    architecture: str
    weights: str
    parameters: int | None = None
    epochs_run: int | None = None
    best_epoch: int | None = None
    minutes: float | None = None
    temperature: float | None = None
    threshold: float | None = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
    failed: str | None = None

    @property
    def validation_auroc(self) -> float | None:
        """What the networks are sorted by."""
        return self.validation.auroc if self.validation else None


class Ceiling(_Contents):
    """What a phantom allows: AUROC of all its signs together and of its diameter, on average."""

    bayes_auroc: float | None = None
    size_auroc: float | None = None


NODES = "cervical lymph nodes"
"""What a cohort is of unless it is said."""


class Cohort(_Contents):
    """The images, what they are of, and how they were shared out; `split` is a sentence."""

    name: str
    of: str = NODES
    sha256: str
    n: int
    patients: int
    split: str
    split_by: Literal["patient", "image", "table"]
    images_per_part: dict[str, dict[str, int]]
    patients_per_part: dict[str, int]
    ceiling: Ceiling | None = None


class Choice(_Contents):
    """One choice: what, on which part, when (ISO) and how (a sentence)."""

    what: str
    on: str
    when: str
    how: str


class Pair(_Contents):
    """Two networks on test: AUROC of `a` less that of `b`, its interval, DeLong's p, and p after Holm's correction."""

    a: str
    b: str
    auroc_difference: float | None = None
    auroc_difference_ci95: Interval | None = None
    p: float | None = None
    p_holm: float | None = None


class Comparison(_Contents):
    """Everything the report says.

    Attributes
    ----------
    made
        When, ISO.
    command, commands
        The one that made the comparison; all that repeat it, in order.
    focus
        Weight in the loss of evidence away from the node.
    selected
        Architecture of the chosen network; None if all have failed.
    chosen
        In the order in which it was.
    pairwise
        On test.
    """

    notice: str
    made: str
    command: str
    commands: list[str]
    versions: dict[str, str]
    cohort: Cohort
    preprocess: Preprocess
    focus: float = 0
    networks: list[Network]
    selected: str | None
    chosen: list[Choice]
    pairwise: list[Pair]
    warnings: list[str]

    @model_validator(mode="after")
    def _selected_is_there(self) -> Comparison:
        if self.selected is not None and self.best is None:
            raise ValueError("the selected network is not among those that were trained to the end")
        return self

    @property
    def best(self) -> Network | None:
        """The selected network."""
        return next((one for one in self.ranked if one.architecture == self.selected and not one.failed), None)

    @property
    def ranked(self) -> list[Network]:
        """All networks, the highest AUROC on validation first, those without one last."""
        return sorted(self.networks, key=_rank)


def _rank(network: Network) -> float:
    return math.inf if network.failed or network.validation_auroc is None else -network.validation_auroc


def plain(value: Any) -> Any:
    """Return a JSON-able value that any reader takes: NaN and infinity are None, bytes that are no text are spelt."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value
