from __future__ import annotations

import csv
import json
import shutil
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lymphcad_train.cohort import load_windows  # noqa: E402
from lymphcad_train.networks import CamNetwork  # noqa: E402
from lymphcad_train.record import score  # noqa: E402
from lymphcad_train.run import read_record, read_started  # noqa: E402
from lymphcad_train.training import Training  # noqa: E402
from lymphcad_train.weights import load_weights  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from lymphcad.bundle import sha256  # noqa: E402
from lymphcad.errors import CommandError  # noqa: E402

pytestmark = pytest.mark.torch


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def changed(cohort, tmp_path, change):
    """Write the cohort's table again, with absolute paths and a change, and return its path."""
    rows = table(cohort)
    for row in rows:
        row["image"] = str(cohort.parent / row["image"])
    change(rows)
    out = tmp_path / "changed.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return out


def test_the_run_says_what_was_trained_on_what(trained_run, made_cohort):
    record = read_record(trained_run)
    assert record.training["cohort_sha256"] == sha256(made_cohort)
    assert record.weights_sha256 == sha256(trained_run / "weights.safetensors")
    assert record.training["n"] == 64
    assert record.training["patients"] == 32
    assert record.training["images_per_part"] == {
        "train": {"benign": 24, "metastatic": 24},
        "val": {"benign": 4, "metastatic": 4},
        "test": {"benign": 4, "metastatic": 4},
    }
    assert record.training["epochs_run"] == 5
    assert record.training["crop_sizes"] == [32, 48]
    assert record.training["command"].startswith("lymphcad train cohort.csv --out run --arch resnet50 --weights none")
    assert str(made_cohort.parent) not in (trained_run / "run.json").read_text()
    assert record.metrics["validation"]["n"] == record.metrics["test"]["n"] == 8
    assert "size_baseline_auroc" in record.metrics["test"]


def test_predictions_are_those_of_the_saved_weights(trained_run):
    from lymphcad_train.graphs import Preprocess

    record = read_record(trained_run)
    network = CamNetwork("resnet50").eval()
    load_weights(network, trained_run / "weights.safetensors")
    preprocess = Preprocess(**record.preprocess.model_dump())
    windows = load_windows(trained_run / "windows.npz")
    rows = table(trained_run / "predictions.csv")
    assert [row["split"] for row in rows] == [row["split"] for row in table(trained_run / "split.csv")]
    assert {row["split"] for row in rows if not row["probability"]} == {"train"}
    scored = [number for number, row in enumerate(rows) if row["probability"]]
    assert len(scored) == 16
    for number in scored[::5]:
        with torch.inference_mode():
            crop = preprocess(
                torch.from_numpy(windows.hu[number])[None],
                torch.from_numpy(windows.spacing_mm[number])[None],
                torch.from_numpy(windows.center[number])[None],
            )
            logits = network(crop)[0][0]
        probability = torch.sigmoid((logits[1] - logits[0]) / record.temperature).item()
        assert float(rows[number]["probability"]) == pytest.approx(probability, abs=1e-4)


def test_what_is_recorded_is_scored_without_tf32_and_training_keeps_it(trained_run, monkeypatch):
    convolutions = torch.backends.cudnn.conv
    convolutions.fp32_precision = "tf32"  # as it is by default
    seen, forward = [], CamNetwork.forward

    def spied(self, crop):
        seen.append(convolutions.fp32_precision)
        return forward(self, crop)

    monkeypatch.setattr(CamNetwork, "forward", spied)
    run = read_started(trained_run).settings
    network = CamNetwork(run.architecture)
    score(network, load_windows(trained_run / "windows.npz"), np.arange(3), run)
    assert seen == ["ieee"]
    assert convolutions.fp32_precision == "tf32"


def test_only_epochs_at_the_full_size_are_candidates(trained_run):
    log = table(trained_run / "log.csv")
    assert [row["size"] for row in log] == ["32"] * 3 + ["48"] * 2
    assert {row["selected"] for row in log[:3]} == {"0"}
    assert log[3]["selected"] == "1"


def test_a_killed_run_resumes_to_the_same_numbers(train_command, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train_command(whole, "--batch", "12") == 0
    steps, step = [], Training.training_step

    def killed(self, batch):
        steps.append(self.current_epoch)
        if len(steps) == 6:  # four steps an epoch: in the middle of the second
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "training_step", killed)
        assert train_command(out, "--batch", "12") == 130
    assert not (out / "run.json").exists()
    assert len(table(out / "log.csv")) == 1
    assert train_command(out, "--batch", "12", "--resume") == 0
    weights, again = (load_file(run / "weights.safetensors") for run in (whole, out))
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert (out / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    records = [read_record(run).model_dump() for run in (whole, out)]
    commands = [record["training"].pop("command") for record in records]
    assert commands[0].replace("whole", "run") == commands[1]
    for record in records:
        record["training"].pop("minutes")
    assert records[0] == records[1]
    for name in ("loss", "val_auroc", "val_loss", "learning_rate"):
        assert [row[name] for row in table(out / "log.csv")] == [row[name] for row in table(whole / "log.csv")]


def test_a_run_is_not_resumed_with_other_options_nor_twice(trained_run, train_command, tmp_path, capsys):
    assert train_command(trained_run, "--resume") == 2
    assert "is complete" in capsys.readouterr().err
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    shutil.copy(trained_run / "settings.json", unfinished)
    assert train_command(unfinished, "--resume", "--seed", "3") == 2
    assert "seed was 0 and is 3" in capsys.readouterr().err
    assert train_command(tmp_path / "none", "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert train_command(trained_run) == 2
    assert "exists" in capsys.readouterr().err


def test_images_that_cannot_be_read_are_all_named_before_an_epoch(made_cohort, train_command, tmp_path, capsys):
    def change(rows):
        rows[1]["image"] = "gone.png"
        rows[4]["col"] = "900"
        broken = tmp_path / "broken.png"
        broken.write_bytes((made_cohort.parent / "6.png").read_bytes()[:500])
        rows[6]["image"] = str(broken)

    out = tmp_path / "run"
    assert train_command(out, cohort=changed(made_cohort, tmp_path, change)) == 2
    said = capsys.readouterr().err
    assert "3 of 64 images cannot be used" in said
    for place in ("row 2 (line 3): file_missing", "row 5 (line 6): node_outside", "row 7 (line 8): truncated"):
        assert place in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: [row.update(label="0") for row in rows], "train has no metastatic image"),
        (lambda rows: rows[0].update(label="2"), "label is not 0 or 1"),
        (lambda rows: [row.update(split=["train", "val"][n % 2]) for n, row in enumerate(rows)], "in more than one"),
    ],
)
def test_a_cohort_that_cannot_be_split_is_refused(made_cohort, train_command, tmp_path, capsys, change, expected):
    assert train_command(tmp_path / "run", cohort=changed(made_cohort, tmp_path, change)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arch", "lenet"], "there is no network 'lenet'"),
        (["--weights", "/none/such.safetensors"], "there is no file"),
        (["--batch", "400"], "give a smaller --batch"),
        (["--epochs", "0"], "--epochs"),
        (["--size", "8"], "--size"),
        (["--arch", "inception_v3", "--size", "64"], "75 pixels a side or more, not 32"),  # of the progressive epochs
        (["--arch", "inception_v3", "--size", "64", "--progressive", "0"], "75 pixels a side or more, not 64"),
    ],
)
def test_options_that_cannot_be_met_are_refused(train_command, tmp_path, capsys, options, expected):
    assert train_command(tmp_path / "run", *options) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_imagenet_weights_are_said_and_never_replaced(train_command, tmp_path, monkeypatch, capsys):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert train_command(tmp_path / "run", "--weights", "imagenet") == 2
    assert "--weights none to start from random ones" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_starts_from_a_file_of_weights(tmp_path):
    from lymphcad_train.weights import start_from

    donor, network = CamNetwork("resnet50"), CamNetwork("resnet50")
    save_file(donor.backbone.state_dict(), tmp_path / "a.safetensors")
    start_from(network, str(tmp_path / "a.safetensors"))
    torch.save({"state_dict": donor.backbone.state_dict()}, tmp_path / "a.pth")
    start_from(CamNetwork("resnet50"), str(tmp_path / "a.pth"))
    for name, tensor in donor.backbone.state_dict().items():
        assert torch.equal(tensor, network.backbone.state_dict()[name])


def test_training_starts_from_another_run(trained_run):
    from lymphcad_train.weights import start_from

    network = CamNetwork("resnet50")
    start_from(network, str(trained_run / "weights.safetensors"))
    expected = load_file(trained_run / "weights.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_or_with_code_in_them_are_refused(tmp_path):
    from lymphcad_train.weights import start_from

    network = CamNetwork("resnet50")
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(CommandError, match="do not fit resnet50"):
        start_from(network, str(tmp_path / "a.safetensors"))
    torch.save({"state_dict": np.random.default_rng}, tmp_path / "code.pth")
    with pytest.raises(CommandError, match="cannot be read as weights"):
        start_from(network, str(tmp_path / "code.pth"))


def test_a_loss_that_is_not_finite_stops_and_is_said(train_command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lymphcad_train.training.cross_entropy", lambda *_, **__: torch.tensor(float("nan")))
    assert train_command(tmp_path / "run") == 2
    assert "the loss became nan in epoch 1" in capsys.readouterr().err


def test_settings_hold_no_path(trained_run):
    started = json.loads((trained_run / "settings.json").read_text())
    assert started["settings"]["weights"] == "none"


def test_a_full_disk_leaves_the_last_checkpoint(train_command, tmp_path, monkeypatch, capsys):
    """The limit of a file's size stands in for a disk: the second checkpoint meets it in the middle."""
    import resource

    out = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    end = Training.on_save_checkpoint

    def full(self, checkpoint):
        end(self, checkpoint)
        if self.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))

    on_limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does; Lightning may set it again
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_save_checkpoint", full)
        try:
            assert train_command(out) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, on_limit)
    assert "make room, and go on with --resume" in capsys.readouterr().err
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0
    assert train_command(out, "--resume") == 0
    assert [row["epoch"] for row in table(out / "log.csv")] == ["1", "2", "3"]


def test_training_aims_at_soft_labels_and_figures_at_labels(made_cohort, train_command, tmp_path, monkeypatch):
    aims = set()
    step = Training.training_step

    def seen(self, batch):
        aims.update(round(float(aim), 3) for aim in batch[3])
        return step(self, batch)

    def change(rows):
        for row in rows:
            row["soft_label"] = "" if row["patient"] == "p0" else "0.8" if row["label"] == "1" else "0.3"
            row["split"] = (
                "train" if int(row["patient"][1:]) < 24 else "val" if int(row["patient"][1:]) < 28 else "test"
            )

    monkeypatch.setattr(Training, "training_step", seen)
    out = tmp_path / "run"
    assert train_command(out, "--epochs", "1", "--progressive", "0", cohort=changed(made_cohort, tmp_path, change)) == 0
    assert aims == {0.3, 0.8, 0.025}  # the label where there is no soft one, smoothed
    record = read_record(out)
    assert record.training["soft_labels"] == 62
    assert record.metrics["test"]["positives"] == 4


def test_a_run_killed_before_test_was_evaluated_resumes(trained_run, train_command, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(trained_run, out)
    record = json.loads((out / "run.json").read_text())
    test = record["metrics"].pop("test")
    (out / "run.json").write_text(json.dumps(record))
    (out / "predictions.csv").unlink()
    monkeypatch.setattr(Training, "training_step", lambda *_: pytest.fail("trained again"))
    assert train_command(out, "--epochs", "5", "--batch", "4", "--resume") == 0
    assert json.loads((out / "run.json").read_text())["metrics"]["test"] == test
    assert (out / "predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()
