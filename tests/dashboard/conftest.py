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
