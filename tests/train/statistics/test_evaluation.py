from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

pytest.importorskip("sklearn")

from lymphcad_train.statistics import Cases, SizeModel, delong_interval, delong_test, evaluate, summary

from lymphcad.errors import CommandError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("lymphcad_train.statistics.roc.RESAMPLES", 200)


def cohort(seed, lesions=120):
    """Return lesions of forty patients in two images each; both the network and the size know something."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, lesions)
    diameters = np.exp(2.3 + 0.4 * labels + generator.normal(0, 0.4, lesions))
    logits = np.repeat(2 * labels - 1 + generator.normal(0, 1.2, lesions), 2) + generator.normal(0, 0.5, 2 * lesions)
    numbers = np.repeat(np.arange(lesions), 2)
    return Cases(
        expit(logits),
        np.repeat(labels, 2),
        (numbers % 40).astype(str),
        np.repeat(diameters, 2) - np.tile([0, 1], lesions),
        (numbers // 40).astype(str),
    )


def plain(probabilities, labels, diameters=None):
    labels = np.array(labels)
    diameters = np.full(len(labels), np.nan) if diameters is None else np.array(diameters)
    return Cases(
        np.array(probabilities), labels, np.arange(len(labels)).astype(str), diameters, np.full(len(labels), "")
    )


def as_json(found):
    """Return it, read back from JSON without NaN and infinity, in which nothing may get lost."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_figures_by_hand():
    found = as_json(evaluate(plain([0.1, 0.6, 0.7, 0.4], [0, 0, 1, 1], [3.0, 9.0, 8.0, 9.5]), 0.5, seed=0))
    assert found["n"] == found["patients"] == 4
    assert found["positives"] == found["negatives"] == 2
    assert found["auroc"] == 0.75
    assert found["confusion"] == {"tp": 1, "fp": 1, "tn": 1, "fn": 1}
    assert {found[name] for name in ("sensitivity", "specificity", "accuracy", "ppv", "npv")} == {0.5}
    # Wilson, 2 of 4: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
    assert found["accuracy_ci95"] == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.09 + 0.36) / 4)
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.6) / 4)
    assert found["size_baseline_auroc"] == 0.75
    assert found["roc"] == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert [group["n"] for group in found["by_size"]] == [4, 0, 0]
    assert found["by_size"][1]["auroc"] is None
    assert "lesion" not in found
    assert "with_size" not in found


def test_every_figure_of_a_cohort():
    cases, validation = cohort(12), cohort(13)
    found = as_json(evaluate(cases, 0.5, seed=0, validation=validation))
    assert found["cannot"] == []
    assert (found["n"], found["lesion"]["n"], found["patients"], found["lesion"]["patients"]) == (240, 120, 40, 40)
    assert found["auroc"] == pytest.approx(roc_auc_score(cases.labels, cases.probabilities))
    assert found["auroc_ci95_delong"] == list(delong_interval(cases.probabilities, cases.labels))
    assert found["size_baseline_auroc"] == pytest.approx(roc_auc_score(cases.labels, cases.diameters_mm))
    model = SizeModel.fit(validation)
    assert found["with_size"]["coefficients"] == vars(model)
    assert found["with_size"]["auroc"] == pytest.approx(roc_auc_score(cases.labels, model.score(cases)))
    assert found["with_size"]["auroc"] > found["auroc"] > found["size_baseline_auroc"]
    assert found["p_against_size"] == delong_test(cases.probabilities, cases.diameters_mm, cases.labels)[1]
    assert found["with_size"]["p_against_size"] == delong_test(model.score(cases), cases.diameters_mm, cases.labels)[1]
    assert found["above_size"] == pytest.approx(found["auroc"] - found["size_baseline_auroc"])
    assert found["with_size"]["above_size"] > found["above_size"]
    for name in ("auroc", "size_baseline_auroc", "above_size"):
        assert found[f"{name}_ci95"][0] < found[name] < found[f"{name}_ci95"][1]


def test_size_groups_part_the_cases():
    cases = cohort(12)
    groups = evaluate(cases, 0.5, seed=0)["by_size"]
    assert [group["group"] for group in groups] == ["< 10 mm", "10 to < 20 mm", ">= 20 mm"]
    assert sum(group["n"] for group in groups) == len(cases)
    small = cases.diameters_mm < 10
    assert groups[0]["auroc"] == pytest.approx(roc_auc_score(cases.labels[small], cases.probabilities[small]))
    assert groups[0]["positives"] == cases.labels[small].sum()
    edges = evaluate(plain([0.1] * 4, [0, 1, 0, 1], [9.9, 10.0, 20.0, 40.0]), 0.5, seed=0)["by_size"]
    assert [group["n"] for group in edges] == [1, 1, 2]


def test_lesions_are_evaluated_as_cases_of_their_own():
    cases, validation = cohort(12), cohort(13)
    found = evaluate(cases, 0.5, seed=0, validation=validation)
    lesions = cases.by_lesion()
    alone = Cases(
        lesions.probabilities, lesions.labels, lesions.patients, lesions.diameters_mm, np.full(len(lesions), "")
    )
    assert found["lesion"] == evaluate(alone, 0.5, seed=0, validation=validation.by_lesion())
    assert found["auroc_lesion"] == found["lesion"]["auroc"]
    assert found["auroc_lesion_ci95"] == found["lesion"]["auroc_ci95"]
    assert found["size_baseline_auroc_lesion"] == found["lesion"]["size_baseline_auroc"]
    assert found["size_baseline_auroc_lesion_ci95"] == found["lesion"]["size_baseline_auroc_ci95"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_evaluated_as_far_as_it_can_be(label):
    found = as_json(evaluate(plain([0.2, 0.4, 0.9], [label] * 3, [8.0, 9.0, 12.0]), 0.5, seed=0, validation=cohort(13)))
    for name in ("auroc", "auroc_ci95", "auroc_ci95_delong", "roc", "size_baseline_auroc", "size_baseline_auroc_ci95"):
        assert found[name] is None
    assert found["with_size"]["auroc"] is found["with_size"]["p_against_size"] is None
    assert found["sensitivity" if label == 0 else "specificity"] is None
    assert found["accuracy"] == pytest.approx(2 / 3 if label == 0 else 1 / 3)
    assert any(f"No {('metastatic', 'benign')[label]} images" in sentence for sentence in found["cannot"])


def test_what_cannot_be_told_is_said():
    few = as_json(evaluate(plain([0.2, 0.3, 0.4], [0, 0, 1]), 0.5, seed=0))
    assert few["auroc_ci95_delong"] is few["ppv"] is None
    assert few["auroc_ci95"] == [1, 1]
    assert few["cannot"] == [
        "Fewer than 10 benign images (2): intervals and p-values are unreliable.",
        "Fewer than 10 metastatic images (1): intervals and p-values are unreliable.",
        "Only one of the images in a class: DeLong's variance cannot be computed.",
        "The classes separate without an error: the intervals of an AUROC of 1 have no width.",
        "No images are called metastatic: the PPV cannot be computed.",
        "The diameter is not known of all images: nothing is told about size.",
    ]
    assert "size_baseline_auroc" not in few
    assert "by_size" not in few


def test_what_the_network_adds_is_not_told_where_validation_lacks_a_class():
    cases, validation = cohort(12), cohort(13)
    found = evaluate(cases, 0.5, seed=0, validation=validation.select(validation.labels == 1))
    assert "with_size" not in found
    assert found["cannot"] == found["lesion"]["cannot"]
    assert found["cannot"] == [
        "Validation lacks a class or a diameter: what the network adds to size cannot be computed."
    ]
    unnamed = plain(validation.probabilities, validation.labels, validation.diameters_mm)
    found = evaluate(cases, 0.5, seed=0, validation=unnamed)
    assert "with_size" in found
    assert "with_size" not in found["lesion"]
    assert [sentence[:26] for sentence in found["lesion"]["cannot"]] == ["Validation names no lesion"]


def test_lesions_that_only_some_images_name_are_left_alone():
    cases = plain([0.2, 0.7], [0, 1])
    some = Cases(cases.probabilities, cases.labels, cases.patients, cases.diameters_mm, np.array(["1", ""]))
    found = evaluate(some, 0.5, seed=0)
    assert "auroc_lesion" not in found
    assert "Some images name no lesion: nothing is told a lesion." in found["cannot"]


def test_nothing_cannot_be_evaluated():
    with pytest.raises(CommandError, match="nothing to evaluate"):
        evaluate(plain([], []), 0.5, seed=0)


def test_a_summary_is_small():
    found = evaluate(cohort(12), 0.5, seed=0, validation=cohort(13))
    short = summary(found)
    assert set(found) - set(short) == {"roc", "size_roc", "reliability", "by_size", "lesion"}
    assert short["auroc_lesion"] == found["lesion"]["auroc"]
    assert len(json.dumps(short)) < 2500
