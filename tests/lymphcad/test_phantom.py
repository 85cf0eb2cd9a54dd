from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lymphcad.cli import main
from lymphcad.dicom import read_slice
from lymphcad.phantom.canvas import Canvas, Ellipse, field, scan
from lymphcad.phantom.cohort import COLUMNS, compose, write_cohort
from lymphcad.phantom.node import paint_node
from lymphcad.phantom.signs import _SIGNS, Signs, auroc, ceilings, draw_signs, log_likelihood_ratio
from lymphcad.tables import read_cohort

PLAIN = Signs(10.0, 0.7, 90.0, 2.0, fatty_hilum=False, cystic=False, calcified=False)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "cohort"
    known = write_cohort(out, 5, 17, 3, workers=2, advance=lambda _: None)
    return out, known


def painted(signs: Signs, spacing: float = 0.4) -> tuple[np.ndarray, Canvas, Ellipse]:
    canvas = Canvas(128, spacing, (64, 64), 0.0)
    canvas.hu[:] = -100
    short, long = signs.half_axes_mm
    shape = Ellipse(0, 0, long, short, 0.4)
    paint_node(canvas, shape, signs, np.random.default_rng(2))
    return canvas.hu, canvas, shape


def test_the_papers_composition():
    lesions = compose(202, 995, 0)
    assert len(lesions) == 202
    assert all(lesions)
    images = [(lesion.label, lesion.slices) for patient in lesions for lesion in patient]
    assert sum(slices for label, slices in images if label == 0) == 647
    assert sum(slices for label, slices in images if label == 1) == 348
    mixed = [{lesion.label for lesion in patient} for patient in lesions]
    assert 40 < sum(labels == {0} for labels in mixed) < 120  # metastases cluster
    assert sum(labels == {0, 1} for labels in mixed) > 40


@given(st.integers(1, 30), st.integers(0, 60), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_any_composition_adds_up(patients, more, seed):
    images = patients + more
    lesions = compose(patients, images, seed)
    assert len(lesions) == patients
    assert all(sum(lesion.slices for lesion in patient) >= 1 for patient in lesions)
    assert sum(lesion.slices for patient in lesions for lesion in patient) == images
    metastatic = sum(lesion.slices for patient in lesions for lesion in patient if lesion.label)
    assert metastatic == round(images * 348 / 995)


def test_the_ceilings_are_where_they_should_be():
    known = ceilings()
    assert known["bayes_auroc"] == pytest.approx(0.97, abs=0.005)
    assert known["size_auroc"] == pytest.approx(0.75, abs=0.01)


def test_auroc_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.normal(labels, 1.0), 1)  # with ties
    assert auroc(scores[labels == 0], scores[labels == 1]) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_the_likelihoods_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for label in (0, 1, 0, 1):
        signs = draw_signs(rng, label)
        expected = 0.0
        for name, sign in _SIGNS.items():
            value = getattr(signs, name)
            if isinstance(value, bool):
                expected += np.diff([np.log(share if value else 1 - share) for share in sign.frequencies])[0]
                continue
            scale = np.log if sign.logarithmic else float
            low, high, at = scale(sign.low), scale(sign.high), scale(value)
            densities = [
                stats.truncnorm.logpdf(at, (low - m) / s, (high - m) / s, loc=m, scale=s)
                for m, s in zip(map(scale, sign.means), sign.deviations, strict=True)
            ]
            expected += densities[1] - densities[0]
        assert log_likelihood_ratio(signs) == pytest.approx(expected)


def test_what_is_drawn_has_the_likelihoods_that_are_said():
    # If draws and densities belong together, the mean of the likelihood ratio over benign nodes is 1.
    rng = np.random.default_rng(4)
    ratios = np.exp([log_likelihood_ratio(draw_signs(rng, 0)) for _ in range(40_000)])
    assert ratios.mean() == pytest.approx(1.0, abs=5 * ratios.std() / 200)
    inverse = np.exp([-log_likelihood_ratio(draw_signs(rng, 1)) for _ in range(40_000)])
    assert inverse.mean() == pytest.approx(1.0, abs=5 * inverse.std() / 200)


def test_signs_show_in_the_image():
    hu, canvas, shape = painted(PLAIN)
    solid = canvas.patch(shape.grown(-0.5)).over((slice(0, 128), slice(0, 128))) == 1
    assert solid.sum() * 0.4**2 == pytest.approx(np.pi * (shape.a - 0.5) * (shape.b - 0.5), rel=0.12)
    assert hu[solid].mean() == pytest.approx(90, abs=1)
    assert hu[solid].std() == pytest.approx(2, abs=0.5)
    rough = painted(replace(PLAIN, heterogeneity_hu=20.0))[0]
    assert rough[solid].std() == pytest.approx(20, abs=4)
    assert (painted(replace(PLAIN, fatty_hilum=True))[0][solid] < -30).mean() > 0.08
    cyst = painted(replace(PLAIN, cystic=True))[0][solid]
    assert ((cyst > 0) & (cyst < 30)).mean() > 0.1
    assert painted(replace(PLAIN, calcified=True))[0].max() > 300


def test_a_shape_beyond_the_image_changes_nothing():
    canvas = Canvas(64, 0.5, (32, 32), 0.3)
    canvas.paint(Ellipse(400, -300, 10, 5), 100.0)
    assert (canvas.hu == -1000).all()
    canvas.paint(Ellipse(16, 0, 8, 8), 100.0)  # half of it
    assert (canvas.hu > 0).any()


def test_a_field_has_mean_0_and_deviation_1():
    values = field(np.random.default_rng(0), (50, 70), 6.0)
    assert values.shape == (50, 70)
    assert values.mean() == pytest.approx(0, abs=1e-4)
    assert values.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(values, axis=0)).mean() < 0.3  # smooth


def test_the_scanner_blurs_and_adds_its_noise():
    edge = np.where(np.arange(64) < 32, 0.0, 100.0).astype(np.float32)
    seen = scan(np.tile(edge, (64, 1)), np.random.default_rng(0), 1.0, 8.0)
    assert seen.dtype == np.int16
    assert seen[:, :20].std() == pytest.approx(8, rel=0.15)
    assert seen[:, 32].mean() == pytest.approx(100 * 0.69, abs=4)  # the Gaussian's integral up to half a pixel


def test_files_and_tables(cohort):
    out, known = cohort
    assert (known["images"], known["benign"], known["metastatic"]) == (17, 11, 6)
    assert json.loads((out / "phantom.json").read_text()) == known
    with (out / "cohort.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    rows = read_cohort(out / "cohort.csv")
    assert len(rows) == 17
    assert len({row.patient for row in rows}) == 5
    assert len(list(out.rglob("*.dcm"))) == 17
    uids = set()
    for row in rows:
        ct = read_slice(out / row.image)
        assert ct.hu.shape == (512, 512)
        assert 0.3 <= ct.spacing_mm[0] <= 0.6
        assert 20 < row.row < 492
        assert 20 < row.col < 492
        assert ct.orientation == (1, 0, 0, 0, 1, 0)
        assert row.diameter_mm is not None
        assert 3 <= row.diameter_mm <= 25
        uids.add(ct.sop_instance_uid)
        # The largest circle that certainly lies in the node is not fat on the whole, and the corner is air.
        rows_mm = (np.arange(512) - row.row)[:, None] * ct.spacing_mm[0]
        columns_mm = (np.arange(512) - row.col)[None] * ct.spacing_mm[1]
        assert -60 < ct.hu[np.hypot(rows_mm, columns_mm) < row.diameter_mm * 0.28].mean() < 400
        assert ct.hu[:5, :5].mean() < -950
    assert len(uids) == 17
    with (out / "signs.csv").open(newline="") as file:
        signs = list(csv.DictReader(file))
    assert [line["image"] for line in signs] == [row.image for row in rows]


def test_the_same_seed_gives_the_same_bytes(cohort, tmp_path):
    out, _ = cohort
    again, other = tmp_path / "again", tmp_path / "other"
    write_cohort(again, 5, 17, 3, workers=1, advance=lambda _: None)
    write_cohort(other, 5, 17, 4, workers=1, advance=lambda _: None)
    for file in sorted(out.rglob("*")):
        if file.is_file():
            assert (again / file.relative_to(out)).read_bytes() == file.read_bytes()
    assert (other / "cohort.csv").read_bytes() != (out / "cohort.csv").read_bytes()


def test_dciodvfy_finds_no_error(cohort):
    if shutil.which("dciodvfy") is None:
        assert not os.environ.get("CI"), "dciodvfy is missing: install dicom3tools"
        pytest.skip("dciodvfy is missing: install dicom3tools")
    for path in sorted(cohort[0].rglob("*.dcm")):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert "CTImage" in lines
        assert not [line for line in lines if line.startswith("Error")]


def test_the_command(tmp_path, capsys):
    out = tmp_path / "made"
    with pytest.raises(SystemExit) as ended:
        main(["phantom", str(out), "--patients", "1", "--images", "2", "--seed", "5", "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["images"] == 2
    for arguments, words in (
        ([str(out)], "not an empty folder"),
        ([str(tmp_path / "new"), "--patients", "9", "--images", "3"], "9 patients with 3 images"),
        ([str(tmp_path / "new"), "--seed", "-1"], "seed"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["phantom", *arguments])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert words in " ".join(said.split())
        assert "Traceback" not in said
