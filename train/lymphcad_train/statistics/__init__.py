"""What a set of probabilities is worth, each figure with its interval, an image and a lesion."""

from lymphcad_train.statistics.calibration import (
    BINS,
    brier,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from lymphcad_train.statistics.cases import Cases
from lymphcad_train.statistics.comparison import Comparison, SizeModel, compare_pairs, holm
from lymphcad_train.statistics.evaluation import FEW, SIZE_GROUPS_MM, evaluate, summary
from lymphcad_train.statistics.proportions import call_figures, wilson_interval
from lymphcad_train.statistics.roc import (
    RESAMPLES,
    ROC_POINTS,
    auroc,
    auroc_interval,
    delong,
    delong_interval,
    delong_test,
    difference_interval,
    resampled_aurocs,
    roc_points,
    weighted_auroc,
)
from lymphcad_train.statistics.threshold import FLAT, sensitivity_threshold, youden_threshold

__all__ = [
    "BINS",
    "FEW",
    "FLAT",
    "RESAMPLES",
    "ROC_POINTS",
    "SIZE_GROUPS_MM",
    "Cases",
    "Comparison",
    "SizeModel",
    "auroc",
    "auroc_interval",
    "brier",
    "call_figures",
    "compare_pairs",
    "delong",
    "delong_interval",
    "delong_test",
    "difference_interval",
    "evaluate",
    "expected_calibration_error",
    "fit_temperature",
    "holm",
    "negative_log_likelihood",
    "reliability",
    "resampled_aurocs",
    "roc_points",
    "sensitivity_threshold",
    "summary",
    "weighted_auroc",
    "wilson_interval",
    "youden_threshold",
]
