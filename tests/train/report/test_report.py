from __future__ import annotations

import copy
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

pytest.importorskip("jinja2")

from lymphcad_train.report import Picture, write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order. Keeps rows, text and what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags, self.rows, self.words = [], [], set(), [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "poster", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, _):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += " " + data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def row(self, first):
        """Return the cells of the first row that starts so."""
        found = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return next(row for row in found if row and row[0].startswith(first))


def evaluation(auroc, **more):
    return {
        "n": 120,
        "patients": 21,
        "positives": 38,
        "negatives": 82,
        "auroc": auroc,
        "auroc_ci95": [auroc - 0.0612, auroc + 0.0523],
        "auroc_ci95_delong": [auroc - 0.05, auroc + 0.05],
        "sensitivity": 0.5789,
        "sensitivity_ci95": [0.4219, 0.7214],
        "specificity": 0.9634,
        "specificity_ci95": [0.8979, 0.9875],
        "accuracy": 0.8417,
        "accuracy_ci95": [0.7659, 0.8962],
        "ppv": 0.88,
        "ppv_ci95": [0.7, 0.96],
        "npv": 0.8316,
        "npv_ci95": [0.744, 0.893],
        "confusion": {"tp": 22, "fp": 3, "tn": 79, "fn": 16},
        "threshold": 0.4098,
        "negative_log_likelihood": 0.366,
        "ece": 0.071,
        "brier": 0.114,
        "reliability": [
            {"mean_probability": 0.03, "share_metastatic": 0.05, "n": 60},
            {"mean_probability": 0.15, "share_metastatic": 0.3, "n": 20},
            {"mean_probability": 0.9, "share_metastatic": 0.85, "n": 40},
        ],
        "roc": [[0, 0], [0.0366, 0.5789], [0.3, 0.9], [1, 1]],
        "size_baseline_auroc": 0.7314,
        "size_baseline_auroc_ci95": [0.62, 0.83],
        "above_size": 0.1786,
        "above_size_ci95": [0.0512, 0.3],
        "p_against_size": 0.003,
        "with_size": {
            "auroc": 0.921,
            "auroc_ci95": [0.86, 0.97],
            "above_size": 0.1896,
            "above_size_ci95": [0.07, 0.31],
            "p_against_size": 0.0002,
        },
        "by_size": [
            {"group": "up to 10 mm", "n": 70, "positives": 15, "auroc": 0.88, "sensitivity": 0.5, "specificity": 0.98},
            {"group": "over 10 mm", "n": 50, "positives": 23, "auroc": None, "sensitivity": 0.6, "specificity": 0.9},
        ],
        "auroc_lesion": 0.93,
        "auroc_lesion_ci95": [0.85, 0.98],
        "size_baseline_auroc_lesion": 0.74,
        "cannot": ["The AUROC of nodes over 10 mm is not given: made up for this test."],
        **more,
    }


def network(architecture, validation_auroc, test_auroc, **more):
    return {
        "architecture": architecture,
        "weights": "none",
        "parameters": 23_512_130,
        "epochs_run": 10,
        "best_epoch": 9,
        "minutes": 41.27,
        "temperature": 0.868,
        "threshold": 0.4098,
        "validation": evaluation(validation_auroc),
        "test": evaluation(test_auroc),
        "failed": None,
        **more,
    }


@pytest.fixture
def comparison():
    return {
        "notice": "Research use only; not a medical device",
        "made": "2026-11-24T12:00:00+00:00",
        "command": "lymphcad compare cohort.csv --out runs",
        "commands": ["lymphcad phantom cohort", "lymphcad compare cohort/cohort.csv --out runs"],
        "versions": {"torch": "2.9.1", "timm": "1.0.22"},
        "cohort": {
            "name": "invented",
            "sha256": "ab" * 32,
            "n": 995,
            "patients": 202,
            "split": "by patient, stratified",
            "split_by": "patient",
            "images_per_part": {
                "train": {"benign": 501, "metastatic": 276},
                "val": {"benign": 64, "metastatic": 34},
                "test": {"benign": 82, "metastatic": 38},
            },
            "patients_per_part": {"train": 160, "val": 21, "test": 21},
            "ceiling": None,
        },
        "preprocess": {"field_of_view_mm": 30.0, "window_level_hu": 60.0, "window_width_hu": 400.0, "size": 224},
        "networks": [
            network("vgg16", 0.8711, 0.9312),
            network("resnet50", 0.9085, 0.9111),
            network("densenet121", 0.9, 0.9, failed="the loss was not finite in epoch 3", validation=None, test=None),
            network("inception_v3", 0.8912, 0.8822, test=None),
        ],
        "selected": "resnet50",
        "chosen": [
            {"what": "network", "on": "validation", "when": "2026-11-24T11:00:00+00:00", "how": "Highest AUROC."},
        ],
        "pairwise": [
            {
                "a": "vgg16",
                "b": "resnet50",
                "auroc_difference": -0.0201,
                "auroc_difference_ci95": [-0.0312, 0.004],
                "p": 0.00004,
                "p_holm": 0.12,
            }
        ],
        "warnings": ["One image was seen twice."],
    }


@pytest.fixture
def pictures():
    file = io.BytesIO()
    Image.new("RGB", (8, 4), (90, 90, 90)).save(file, "PNG")
    return {"false negative": [Picture(file.getvalue(), "Probability 0.12, metastatic, 8.1 mm")]}


@pytest.fixture
def write(tmp_path):
    def written(comparison, pictures=None):
        write_report(comparison, pictures or {}, tmp_path / "out")
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        return Page(page), page, (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8")

    return written


def test_the_page_stands_alone_and_says_what_it_is_not_for(comparison, pictures, write):
    page, source, card = write(comparison, pictures)
    assert "script" not in page.tags
    assert page.loads
    assert all(one.startswith("data:image/png;base64,") for one in page.loads)
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    assert source.count("Research use only; not a medical device") == 2
    assert "Research use only; not a medical device" in card
    assert "Probability 0.12, metastatic, 8.1 mm" in page.text


def test_every_network_has_a_row_with_the_figures_given_in_the_order_of_validation(comparison, write):
    page, _, _ = write(comparison)
    first = [row for row in page.rows if len(row) in (2, 6)][1:5]
    assert [row[0].split()[0] for row in first] == ["resnet50", "inception_v3", "vgg16", "densenet121"]
    assert page.row("resnet50 chosen") == [
        "resnet50 chosen",
        "0.908 0.847 to 0.961",
        "0.911 0.850 to 0.963",
        "57.9 % 42.2 to 72.1 %",
        "96.3 % 89.8 to 98.8 %",
        "84.2 % 76.6 to 89.6 %",
    ]
    assert page.row("vgg16")[1:3] == ["0.871 0.810 to 0.923", "0.931 0.870 to 0.984"]
    assert "Failed: the loss was not finite in epoch 3" in page.text
    assert page.row("vgg16 − resnet50")[1:] == ["−0.020 −0.031 to +0.004", "< 0.001", "0.120"]
    assert page.row("up to 10 mm")[1:] == ["70", "15", "0.880", "50.0 %", "98.0 %"]
    assert page.row("Diameter and resnet50 together")[1:] == [
        "0.921 0.860 to 0.970",
        "+0.190 +0.070 to +0.310",
        "< 0.001",
    ]
    assert page.row("Metastatic")[:4] == ["Metastatic", "22", "16", "38"]
    assert page.row("Training")[1:] == ["160", "777", "501", "276", "35.5 %"]


def test_the_summary_says_which_network_how_good_and_against_what(comparison, write):
    comparison["cohort"]["ceiling"] = {"bayes_auroc": 0.9734, "size_auroc": 0.747}
    page, _, card = write(comparison)
    for said in (page.text, card.replace("\u00a0", " ")):
        assert "resnet50 was chosen on the validation part, where its AUROC is 0.908." in said
        assert "its AUROC is 0.911 (95 % interval 0.850 to 0.963)" in said
        assert "At the threshold 0.410, chosen on validation, sensitivity is 57.9 % (42.2 to 72.1 %)" in said
        assert "diameter alone reaches an AUROC of 0.731 (0.620 to 0.830)" in said
        assert "all signs together allow an AUROC of 0.973" in said
        assert "The cohort is a phantom" in said
    assert (
        "The cohort is a phantom" not in write({**comparison, "cohort": {**comparison["cohort"], "ceiling": None}})[1]
    )


@pytest.mark.parametrize("focus", [0.0, 0.3])
def test_a_heatmap_whose_place_was_asked_for_says_so(comparison, pictures, write, focus):
    page, _, card = write({**comparison, "focus": focus}, pictures)
    assert ("evidence away from the node was made costly (weight 0.3 in the loss)" in page.text) == (focus > 0)
    assert ("evidence away from the node was made costly (weight 0.3 in the loss)" in card) == (focus > 0)


@pytest.mark.parametrize("by", ["patient", "table", "image"])
def test_only_a_split_by_image_warns_that_every_figure_is_inflated(comparison, write, by):
    comparison["cohort"]["split_by"] = by
    page, _, card = write(comparison)
    assert ("stand on both sides of the split" in page.text) == (by == "image")
    assert ("stand on both sides of the split" in card) == (by == "image")
    assert "One image was seen twice." in page.text


def test_hostile_names_stay_words(comparison, pictures, write):
    cohort = {**comparison["cohort"], "name": HOSTILE, "split": HOSTILE}
    comparison["networks"][1]["architecture"] = comparison["selected"] = HOSTILE
    comparison["pairwise"][0]["a"] = HOSTILE
    comparison["commands"] = [f"train\n\n{HOSTILE}"]
    comparison["versions"] = {"a|b": "1`2"}
    pictures["false negative"] = [Picture(pictures["false negative"][0].png, f'"><img src=x>{HOSTILE}')]
    page, source, card = write({**comparison, "cohort": cohort, "warnings": [HOSTILE]}, pictures)
    assert "script" not in page.tags
    assert "<script" not in source
    assert HOSTILE in page.text
    # In the card markup is spelt out but for the block of code, whose lines Markdown does not read.
    assert all(line.startswith("    ") for line in card.splitlines() if "<script" in line)
    assert "a\\|b 1\\`2" in card


def test_what_is_not_known_is_a_dash(comparison, write):
    nothing = dict.fromkeys(evaluation(0.9))
    comparison["networks"] = [network("resnet50", 0.9, 0.9, test=nothing, temperature=None, minutes=float("nan"))]
    comparison["pairwise"][0].update(auroc_difference=None, auroc_difference_ci95=None, p=None, p_holm=None)
    page, source, card = write(comparison)
    assert page.row("resnet50 chosen")[2:] == ["–"] * 4
    assert page.row("vgg16 − resnet50")[1:] == ["–"] * 3
    assert "its AUROC cannot be computed." in page.text
    assert "What diameter alone reaches is not known" in page.text
    for text in (page.text, card):
        assert not re.search(r"\b(None|nan|null|inf)\b", text)
    assert "<svg" in source  # validation is drawn instead


def test_without_a_chosen_network_the_page_says_so(comparison, write):
    comparison["networks"] = [network("resnet50", 0.9, 0.9, failed="out of memory", validation=None, test=None)]
    page, source, card = write({**comparison, "selected": None, "pairwise": []})
    assert "none was trained to the end, so none was chosen" in page.text
    assert "none was trained to the end, so none was chosen" in card
    assert "<svg" not in source


def test_the_card_goes_through_claim_and_tripod(comparison, write):
    card = write(comparison)[2]
    rows = dict(re.findall(r"^\| (\d+\w?) [^|]* \| (.*) \|$", card.split("## TRIPOD+AI")[0], re.MULTILINE))
    assert list(map(int, rows)) == list(range(1, 45))
    assert all(rows.values())
    assert rows["20"] == "Patient."
    assert rows["14"].endswith("the hospital must state it.")
    # Every row of a table has as many cells as its header.
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_the_json_is_what_was_given(comparison, write, tmp_path):
    comparison["networks"][0]["minutes"] = float("inf")
    comparison["more"] = {"kept": "\udcff"}
    write(comparison)
    read = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    expected = copy.deepcopy(comparison)
    expected["networks"][0]["minutes"] = None
    expected["more"]["kept"] = "\\udcff"
    assert read == expected


@pytest.mark.parametrize("broken", ["comparison", "pictures", "disk"])
def test_the_report_is_written_whole_or_not_at_all(comparison, write, tmp_path, monkeypatch, broken):
    write(comparison)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(before) == {"report.html", "model_card.md", "comparison.json"}
    comparison["made"] = "another day"
    pictures = {}
    if broken == "comparison":
        comparison["selected"] = "no such network"
    elif broken == "pictures":
        pictures = {"patients": []}
    else:
        real = type(tmp_path).write_text

        def full(path, text, **options):
            if path.name == "report.html":
                real(path, text[:100], **options)
                raise OSError("No space left on device")
            return real(path, text, **options)

        monkeypatch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises((ValueError, OSError)):
        write_report(comparison, pictures, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
