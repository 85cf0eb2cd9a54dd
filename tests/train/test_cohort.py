from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch")

from lymphcad_train.cohort import load_windows, read_windows, save_windows

from lymphcad.bundle import Preprocess
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_cohort

PREPROCESS = Preprocess(field_of_view_mm=40, window_level_hu=60, window_width_hu=400, size=48)


@pytest.fixture
def with_copy(made_cohort, tmp_path):
    """Return the rows of a cohort whose last image is a copy of its first, and their folder."""
    folder = tmp_path / "cohort"
    shutil.copytree(made_cohort.parent, folder)
    shutil.copy(folder / "0.png", folder / "63.png")
    return read_cohort(folder / "cohort.csv"), folder


def read(rows, folder, parts, warn=lambda _: None):
    return read_windows(rows, parts, ImageFinder(folder, []), PREPROCESS, 50.0, lambda: None, warn)


def test_the_same_pixels_under_two_names_across_the_split_are_an_error(with_copy):
    rows, folder = with_copy
    with pytest.raises(CommandError, match=r"in two parts of the split.*\(rows 1 and 64\)"):
        read(rows, folder, ["train"] * 63 + ["test"])


def test_the_same_pixels_twice_within_a_part_are_said(with_copy):
    rows, folder = with_copy
    said = []
    assert len(read(rows, folder, ["train"] * 64, said.append)) == 64
    assert said == ["The same pixels stand under two names (rows 1 and 64): each counts in training."]


def test_two_nodes_on_one_image_are_no_copies(made_cohort):
    rows = read_cohort(made_cohort)
    said = []
    read([rows[0], rows[0]], made_cohort.parent, ["train", "train"], said.append)
    assert said == []


def test_windows_come_back_as_saved(made_cohort, tmp_path):
    rows = read_cohort(made_cohort)[:5]
    windows = read(rows, made_cohort.parent, ["train"] * 5)
    save_windows(tmp_path / "windows.npz", windows)
    again = load_windows(tmp_path / "windows.npz")
    assert all((one == other).all() for one, other in zip(windows.hu, again.hu, strict=True))
    assert (again.center == windows.center).all()
