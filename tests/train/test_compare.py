from __future__ import annotations

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lymphcad_train.jobs import run_jobs  # noqa: E402
from lymphcad_train.networks import ARCHITECTURES  # noqa: E402
from lymphcad_train.run import read_record  # noqa: E402
from lymphcad_train.training import Training  # noqa: E402
from rich.console import Console  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from lymphcad.cli import main  # noqa: E402
from lymphcad.errors import CommandError  # noqa: E402

pytestmark = pytest.mark.torch
NETWORKS = ("resnet50", "tf_efficientnet_lite0")
SMALL = ["--size", "48", "--progressive", "0", "--epochs", "2", "--batch", "6", "--lr", "0.002"]


def compare(cohort, out, *options, weights="none"):
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["compare", str(cohort), "--out", str(out), "--weights", str(weights), *SMALL, *options])
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def compared(made_cohort, tmp_path_factory):
    """Return the folder of a comparison that was interrupted in its second network, and then resumed."""
    out = tmp_path_factory.mktemp("compared") / "comparison"
    step = Training.training_step

    def killed(self, batch):
        if self.settings.architecture == NETWORKS[1] and self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "training_step", killed)
        assert compare(made_cohort, out, "--archs", ",".join(NETWORKS)) == 130
    assert not (out / "selection.json").exists()
    assert "test" not in read_record(out / "runs" / NETWORKS[0]).metrics
    assert compare(made_cohort, out, "--archs", ",".join(NETWORKS), "--resume") == 0
    return out


def test_the_best_on_validation_is_chosen_before_test_is_looked_at(compared):
    records = {name: read_record(compared / "runs" / name) for name in NETWORKS}
    selection = json.loads((compared / "selection.json").read_text())
    validation = {name: record.metrics["validation"]["auroc"] for name, record in records.items()}
    assert selection["validation_auroc"] == validation
    assert validation[selection["architecture"]] == max(validation.values())
    written = (compared / "selection.json").stat().st_mtime_ns
    for name in NETWORKS:
        assert (compared / "runs" / name / "predictions.csv").stat().st_mtime_ns > written


def test_the_figures_are_those_of_the_predictions(compared):
    contents = json.loads((compared / "comparison.json").read_text())
    assert [network["architecture"] for network in contents["networks"]] == list(NETWORKS)
    for network in contents["networks"]:
        with (compared / "runs" / network["architecture"] / "predictions.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
        labels, found = (np.array([float(row[name]) for row in rows]) for name in ("label", "probability"))
        assert network["test"]["auroc"] == pytest.approx(roc_auc_score(labels, found))
        assert network["epochs_run"] == 2
    assert contents["cohort"]["split_by"] == "patient"
    assert {pair["a"] for pair in contents["pairwise"]} == {NETWORKS[0]}


def test_the_page_stands_alone_and_shows_pictures(compared):
    page = (compared / "report.html").read_text()
    assert "Research use only" in page
    assert page.count("data:image/png;base64,") >= 4  # of each patient in the test part
    assert "<script" not in page
    assert (compared / "model_card.md").is_file()


def test_a_finished_comparison_is_written_again_and_nothing_is_trained(compared, made_cohort, tmp_path, monkeypatch):
    again = tmp_path / "again"
    shutil.copytree(compared, again)
    monkeypatch.setattr(Training, "training_step", lambda *_: pytest.fail("trained again"))
    before = json.loads((again / "comparison.json").read_text())
    assert compare(made_cohort, again, "--archs", ",".join(NETWORKS), "--resume") == 0
    after = json.loads((again / "comparison.json").read_text())
    assert before.pop("made") <= after.pop("made")
    assert before["networks"] == after["networks"]


def test_a_choice_is_not_made_twice(compared, made_cohort, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(compared, again)
    assert compare(made_cohort, again, "--archs", NETWORKS[0], "--resume") == 2
    assert "was chosen among others before" in capsys.readouterr().err


def test_a_run_under_other_options_is_no_part_of_a_comparison(compared, made_cohort, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(compared, again)
    assert compare(made_cohort, again, "--archs", ",".join(NETWORKS), "--resume", "--lr", "0.004") == 2
    assert "was started with other options (lr was 0.002 and is 0.004)" in capsys.readouterr().err


def test_side_by_side_in_processes_of_their_own(compared, made_cohort, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Training, "training_step", lambda *_: pytest.fail("trained in this process"))
    out = tmp_path / "comparison"
    assert compare(made_cohort, out, "--archs", ",".join(NETWORKS), "--jobs", "2") == 0
    said = capfd.readouterr().err
    assert all(f"{name}, epoch 2/2 at 48 px" in said for name in NETWORKS)
    contents, alone = (json.loads((folder / "comparison.json").read_text()) for folder in (out, compared))
    assert [network["architecture"] for network in contents["networks"]] == list(NETWORKS)
    assert contents["commands"] == alone["commands"]
    assert contents["cohort"] == alone["cohort"]


def test_what_fails_in_another_process_is_told_in_words(made_cohort, tmp_path, capfd):
    options = ["--archs", ",".join(NETWORKS), "--jobs", "2", "--lr", "1e30"]
    assert compare(made_cohort, tmp_path / "comparison", *options) == 2
    said = capfd.readouterr().err
    assert all(f"{name} failed: the loss became" in said for name in NETWORKS)
    assert "no network was trained to the end" in said


def test_a_process_that_is_killed_is_told_in_words(monkeypatch):
    def killed(job):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("lymphcad_train.jobs._run", killed)
    with pytest.raises(CommandError, match="was killed, as a machine does that has no memory left"):
        list(run_jobs([None, None], 2, Console()))


def test_a_network_that_fails_is_in_the_report_and_the_others_go_on(made_cohort, tmp_path, monkeypatch):
    step = Training.training_step

    def diverges(self, batch):
        with monkeypatch.context() as patch:
            if self.settings.architecture == NETWORKS[1]:
                patch.setattr("lymphcad_train.training.cross_entropy", lambda *_, **__: torch.tensor(torch.nan))
            return step(self, batch)

    monkeypatch.setattr(Training, "training_step", diverges)
    out = tmp_path / "comparison"
    assert compare(made_cohort, out, "--archs", ",".join(NETWORKS)) == 0
    contents = json.loads((out / "comparison.json").read_text())
    assert contents["selected"] == NETWORKS[0]
    assert contents["networks"][1]["failed"].startswith("the loss became nan in epoch 1")
    assert "the loss became nan" in (out / "report.html").read_text()


def test_by_image_is_marked(made_cohort, tmp_path, capsys):
    out = tmp_path / "comparison"
    assert (
        compare(
            made_cohort,
            out,
            "--archs",
            NETWORKS[1],
            "--split-by",
            "image",
            "--epochs",
            "1",
            "--note",
            "Labels are opinions.",
            "--of",
            "lung nodules",
        )
        == 0
    )
    assert "every figure below is inflated" in capsys.readouterr().err
    assert json.loads((out / "comparison.json").read_text())["cohort"]["split_by"] == "image"
    page = (out / "report.html").read_text()
    assert "Every figure here is inflated" in page
    assert "Malignancy of lung nodules" in page
    assert "Labels are opinions." in page
    assert "Labels are opinions." in (out / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--archs", "lenet"], "names no network 'lenet'"),
        (["--archs", "paper", "--epochs", "0"], "--epochs"),
    ],
)
def test_what_cannot_be_compared_is_refused(made_cohort, tmp_path, capsys, options, expected):
    assert compare(made_cohort, tmp_path / "comparison", *options) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "comparison").exists()


def test_missing_weights_are_named_together_before_an_epoch(made_cohort, tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    assert compare(made_cohort, tmp_path / "comparison", "--archs", "all", weights=tmp_path / "weights") == 2
    said = capsys.readouterr().err
    assert f"the weights of {', '.join(ARCHITECTURES)} cannot be had, and nothing was trained" in said
    assert not (tmp_path / "comparison").exists()


def test_after_a_download_that_failed_no_other_is_tried(made_cohort, tmp_path, capsys, monkeypatch):
    from lymphcad_train import weights

    tried = []

    def offline(name, *, pretrained, **options):
        if pretrained:
            tried.append(name)
            raise ConnectionError
        return create(name, pretrained=False, **options)

    create = weights.timm.create_model
    monkeypatch.setattr(weights.timm, "create_model", offline)
    assert compare(made_cohort, tmp_path / "comparison", "--archs", "paper", weights="imagenet") == 2
    said = capsys.readouterr().err
    assert "nothing was trained, and no further download was tried: the ImageNet weights of vgg16 could not be" in said
    assert len(tried) == 1
    assert not (tmp_path / "comparison").exists()
