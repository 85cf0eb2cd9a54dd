from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

pytest.importorskip("torch")

from lymphcad_train.run import read_probabilities, read_record

from lymphcad.cli import main

pytestmark = pytest.mark.torch
KEYS = {"n", "patients", "auroc", "auroc_ci95", "sensitivity", "sensitivity_ci95", "specificity", "specificity_ci95"}
KEYS |= {"accuracy", "accuracy_ci95", "threshold", "ece", "brier", "size_baseline_auroc", "notice", "model"}


def evaluate(cohort, out, *options):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(cohort), "--json", str(out), *map(str, options)])
    return int(ended.value.code or 0)


@pytest.fixture
def bundle(exported):
    return exported


@pytest.fixture
def with_lesions(made_cohort, tmp_path):
    """Return the cohort's table with lesions: two images each."""
    with made_cohort.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row |= {"image": str(made_cohort.parent / row["image"]), "lesion": f"l{number // 2}"}
    out = tmp_path / "cohort.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return out


def test_a_run_and_its_bundle_are_worth_the_same(trained_run, bundle, made_cohort, tmp_path, capsys):
    assert evaluate(made_cohort, tmp_path / "run.json", "--run", trained_run) == 0
    assert evaluate(made_cohort, tmp_path / "bundle.json", "--bundle", bundle, "--precision", "fp32") == 0
    assert "figures on its training and validation images are inflated" in capsys.readouterr().err
    run, other = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "bundle.json"))
    assert set(run) >= KEYS
    assert run["n"] == 64
    assert run["threshold"] == other["threshold"] == read_record(trained_run).threshold
    assert run["auroc"] == pytest.approx(other["auroc"], abs=1e-3)
    with (tmp_path / "bundle.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {""}  # the table has none
    found = [(int(row["label"]), float(row["probability"])) for row in rows]
    labels, probabilities = map(np.array, zip(*found, strict=True))
    assert other["auroc"] == pytest.approx(roc_auc_score(labels, probabilities))
    in_training = read_probabilities(trained_run)
    scored = ~np.isnan(in_training)
    np.testing.assert_allclose(probabilities[scored], in_training[scored], atol=1e-3)


def test_figures_a_lesion(with_lesions, bundle, tmp_path, capsys):
    assert evaluate(with_lesions, tmp_path / "out.json", "--bundle", bundle) == 0
    assert "inflated" not in capsys.readouterr().err  # another cohort, for all that is known
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["lesion"]["n"] == 32
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    means = [np.mean([float(row["probability"]) for row in rows[n : n + 2]]) for n in range(0, 64, 2)]
    assert found["auroc_lesion"] == pytest.approx(roc_auc_score([int(row["label"]) for row in rows[::2]], means))
    assert "size_baseline_auroc_lesion" in found


def test_commands_that_are_wrong(made_cohort, bundle, probe_bundle, trained_run, tmp_path, capsys):
    for options, expected in (
        ([], "give one of them"),
        (["--run", trained_run, "--bundle", bundle], "give one of them"),
        (["--run", trained_run, "--precision", "int8"], "give --precision with --bundle"),
        (["--bundle", bundle, "--part", "test"], "no rows with split test"),
        (["--bundle", tmp_path / "none"], "none"),
        (["--bundle", probe_bundle.path, "--precision", "int8"], "has its CNN in fp32, and int8 was asked for"),
    ):
        assert evaluate(made_cohort, tmp_path / "out.json", *options) == 2
        assert expected in capsys.readouterr().err
    assert evaluate(made_cohort, tmp_path / "no" / "out.json", "--bundle", bundle) == 2
    assert list(tmp_path.iterdir()) == []
