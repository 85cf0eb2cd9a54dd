"""What the tests of the dashboard's take-away share: made CT that two real bundles have scored in this process."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("jinja2")

from lymphcad_client.batch import score_nodes
from lymphcad_client.opening import open_scorer
from lymphcad_dashboard.reading import Reading

from lymphcad.images import ImageFinder
from lymphcad.phantom.cohort import write_cohort
from lymphcad.tables import read_nodes

BUNDLES = Path(__file__).parents[2] / "bundles"
HOSTILE = '<script>alert("1")</script> & Müller'


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """Return a table of seven nodes of made patients, of which the second, outside the image, is refused."""
    folder = tmp_path_factory.mktemp("study") / "made"
    write_cohort(folder, 6, 6, 3, workers=1, advance=lambda _: None)
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as file:
        made = [[row["image"], row["row"], row["col"]] for row in csv.DictReader(file)]
    rows = [[*node, name] for node, name in zip(made, [HOSTILE, *"cdefg"], strict=True)]
    rows.insert(1, [made[0][0], "9999", "1", "b"])
    table = folder / "nodes.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "row", "col", "node"], *rows])
    return table


@pytest.fixture(scope="session")
def answers_of(study):
    """Return a function that returns the answers of a bundle of the repository for the study."""

    @cache
    def answers(bundle: str) -> list[Reading]:
        with open_scorer(edge=BUNDLES / bundle, runner="onnxruntime") as scorer:
            results = score_nodes(read_nodes(study), ImageFinder(study.parent, []), scorer)
            return [Reading(result, scorer.manifest if result.finding else None) for result in results]

    return answers


@pytest.fixture
def answers(answers_of):
    return answers_of("demo")


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """Return a folder with the report of a comparison of which only one network was trained."""
    pytest.importorskip("jinja2")
    from lymphcad_train.report import Picture, write_report

    out = tmp_path_factory.mktemp("compared")
    network = {
        "architecture": "resnet50", "weights": "none", "parameters": 1,
        "epochs_run": 1, "best_epoch": 1, "minutes": 1.0,
        "temperature": 1.0, "threshold": 0.5, "validation": {"n": 4, "auroc": 0.9}, "test": {"n": 4, "auroc": 0.8},
        "failed": None,
    }  # fmt: skip
    contents = {
        "notice": "Research use only; not a medical device", "made": "2026-11-24", "command": "lymphcad compare",
        "commands": [], "versions": {}, "selected": "resnet50", "networks": [network], "chosen": [], "pairwise": [],
        "warnings": [],
        "cohort": {"name": "<b>made</b> Ä", "sha256": "ab", "n": 8, "patients": 4, "split": "", "split_by": "patient",
                   "images_per_part": {"test": {"benign": 2, "metastatic": 2}}, "patients_per_part": {"test": 2},
                   "ceiling": None},
        "preprocess": {"field_of_view_mm": 30.0, "window_level_hu": 60.0, "window_width_hu": 400.0, "size": 64},
    }  # fmt: skip
    write_report(contents, {"true positive": [Picture(b"\x89PNG", "0.9")]}, out)
    return out
