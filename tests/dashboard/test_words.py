from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lymphcad_dashboard import words

from lymphcad.bundle import BUNDLE_JSON, Manifest, parse_manifest
from lymphcad.errors import Reason, Refusal
from lymphcad.finding import Finding

BUNDLES = Path(__file__).parents[2] / "bundles"


def shipped(name: str) -> Manifest:
    return parse_manifest((BUNDLES / name / BUNDLE_JSON).read_bytes())


def own(**fields) -> Manifest:
    """Return the manifest of a hospital's bundle: the demo's, but for the cohort that it learned from."""
    demo = shipped("demo")
    return demo.model_copy(update={"training": {**demo.training, "cohort_sha256": "ab" * 32}, **fields})


def found(probability: float, threshold: float = 0.4330485) -> Finding:
    call = "metastatic" if probability >= threshold else "benign"
    return Finding(probability, call, threshold, np.zeros((128, 128), np.uint8), "own@abababababab")


def test_every_reason_has_a_heading_of_its_own():
    headings = [words.refusal_heading(reason) for reason in Reason]
    assert len(set(headings)) == len(Reason)
    assert all(0 < len(heading) < 60 and heading[-1] != "." for heading in headings)


def test_a_reason_is_read_back():
    refusal = Refusal(Reason.NOT_CT, "Modality (0008,0060) is MR: send the CT series")
    assert words.parse_reason(str(refusal)) == (Reason.NOT_CT, "Modality (0008,0060) is MR: send the CT series")
    with pytest.raises(ValueError, match="assumed"):
        words.parse_reason("assumed: a spacing")


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.6123, "Called metastatic: 0.612 is at or above the threshold of 0.433."),
        (0.4330485, "Called metastatic: 0.433 is at or above the threshold of 0.433."),
        (0.4330385, "Called benign: 0.43304 is below the threshold of 0.43305."),
        (0.0, "Called benign: 0.000 is below the threshold of 0.433."),
    ],
)
def test_the_call_is_explained_in_numbers_that_differ(probability, said):
    assert words.call_words(found(probability)) == said


@pytest.mark.parametrize("name", sorted(path.parent.name for path in BUNDLES.glob("*/bundle.json")))
@pytest.mark.parametrize("probability", [0.02, 0.98])
def test_a_shipped_bundle_means_nothing_for_a_patient_and_says_so_first(name, probability):
    manifest = shipped(name)
    card = (BUNDLES / name / "model_card.md").read_text(encoding="utf-8")
    assert manifest.training["cohort_sha256"] in card
    learned = "phantom" if "The cohort is a phantom" in card else "nodules of the lung"
    assert learned == "phantom" or "lung nodules" in card
    renamed = manifest.model_copy(update={"name": "hospital"})
    for text in (words.meaning(found(probability), renamed), words.cohort_words(renamed)):
        assert learned in text
        assert "Of 100" not in text
    assert words.meaning(found(probability), renamed).startswith(("It means nothing", "It says nothing"))
    assert "Neither holds for lymph nodes of patients" in words.limits(renamed)


def test_a_share_is_one_of_the_validation_part():
    assert words.meaning(found(0.6123), own()) == (
        "Of 100 nodes that score so, about 61 (on average off by 6) are metastatic if they are like the 116 images that"
        " it was calibrated on, 32 % of them metastatic; of others the share is not known."
    )
    assert ", fewer than 1 " in words.meaning(found(0.004), own())
    assert ", more than 99 " in words.meaning(found(0.9951), own())
    # Named demo, as whoever tries things out names it; what it learned from decides.
    assert "995 images of 202 patients" in words.cohort_words(own(name="demo"))


@pytest.mark.parametrize(
    "known", [{}, {"validation": []}, {"validation": {"n": 0, "positives": 0}}, {"validation": None}]
)
def test_without_a_validation_part_no_share_is_made_up(known):
    said = words.meaning(found(0.9), own(metrics=known))
    assert "does not say" in said
    assert "Of 100" not in said


def test_a_close_call_is_what_the_bundle_allows_between_machines():
    close, far = found(0.4330485 + 0.049), found(0.4330485 + 0.051)
    assert "differ by 0.05, so take the call for undecided" in words.meaning(close, own())
    assert "undecided" not in words.meaning(far, own())
    assert "undecided" in words.meaning(replace(close, probability=0.4330485 - 0.049), own())
    assert "undecided" not in words.meaning(close, own(golden={}))


def test_limits_are_those_of_the_manifest():
    said = words.limits(own())
    assert "one axial slice, 30 x 30 mm" in said
    assert "117 images, sensitivity was 89 % (95 % interval 76 to 96 %) and specificity 82 % (95 % interval 72" in said
    assert "At another hospital" in said
    assert "inflated" not in said
    assert "inflated" in words.limits(own(training={**own().training, "split_by": "image"}))
    bare = own(metrics=json.loads('{"test": {"n": 5, "sensitivity": NaN, "specificity": 0.5}}'), training={})
    assert words.limits(bare).endswith("How often it is right the bundle does not say.")
    assert "does not say" in words.cohort_words(bare)
    whole = own(metrics={"test": {"n": 5, "sensitivity": 1, "specificity": 0.5, "specificity_ci95": None}})
    assert "sensitivity was 100 % and specificity 50 %." in words.limits(whole)


def test_the_heatmap_is_on_the_scale_of_the_bundle():
    said = words.heatmap_words(own())
    assert "0 to 19.5 or more" in said
    assert "no colour does not mean no finding" in said
