"""The sample study: a whole CT series and its table, as if a user had dropped them."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lymphcad.bundle import Bundle
from lymphcad.memory_file import MemoryFile
from lymphcad.phantom import sample
from lymphcad.phantom.cohort import write_cohort
from lymphcad.phantom.dicom_file import SLICE_MM
from lymphcad.phantom.sample import STUDY_LABELS, STUDY_SLICES, sample_study
from lymphcad.series import list_series, read_series
from lymphcad.tables import read_nodes

DEMO = Path(__file__).parents[2] / "bundles" / "demo"
_TISSUE_HU = -500


@pytest.fixture(scope="module")
def study():
    counts = []
    files, table = sample_study(counts.append)
    assert counts == [1] * STUDY_SLICES
    return files, table


@pytest.fixture(scope="module")
def stack(study):
    listing = list_series(study[0])
    assert not listing.refused
    (series,) = listing.series
    return read_series(series)


@pytest.fixture(scope="module")
def nodes(study, stack):
    """Return (node, index of its slice in the stack) of each row of the table."""
    rows = read_nodes(MemoryFile("nodes.csv", study[1]))
    names = [ct.path.as_posix() for ct in stack.slices]
    return [(row, names.index(row.image)) for row in rows]


def test_it_is_one_contiguous_series(stack):
    assert len(stack.slices) == STUDY_SLICES == 30
    assert (stack.refused, stack.note) == ((), "")
    assert {ct.hu.shape for ct in stack.slices} == {(512, 512)}
    heights = np.array([ct.position_mm[2] for ct in stack.slices])
    assert np.diff(heights) == pytest.approx(np.full(29, -SLICE_MM))
    assert (stack.series.modality, stack.series.contrast, stack.series.thickness_mm) == ("CT", "Iodine", SLICE_MM)


def test_two_nodes_of_each_class_are_marked(nodes):
    assert [row.node for row, _ in nodes] == list(STUDY_LABELS)
    assert sorted(STUDY_LABELS.values()) == [0, 0, 1, 1]
    assert all(row.refusal is None for row, _ in nodes)
    assert len({index for _, index in nodes}) == 4


def test_neighbouring_slices_show_the_same_neck(stack):
    bodies = [ct.hu > _TISSUE_HU for ct in stack.slices]
    for above, below in pairwise(bodies):
        assert (above ^ below).sum() < 0.03 * above.sum()
    far = np.abs(stack.slices[0].hu.astype(int) - stack.slices[-1].hu)
    near = [np.abs(a.hu.astype(int) - b.hu) for a, b in pairwise(stack.slices)]
    # Noise and a node differ; but a neck drawn anew in each slice would differ everywhere by its texture.
    assert np.median([(change > 60).mean() for change in near]) < 0.005 < (far > 60).mean()


def test_each_node_is_seen_in_a_few_neighbouring_slices_and_largest_where_it_is_marked(stack, nodes, monkeypatch):
    # The same study, noise and all, without its nodes.
    monkeypatch.setattr(sample, "paint_node", lambda *_: None)
    (series,) = list_series(sample_study(lambda _: None)[0]).series
    without = read_series(series)
    rows, columns = np.indices((512, 512))
    spacing = stack.slices[0].spacing_mm[0]
    shown = {}
    for index, (ct, empty) in enumerate(zip(stack.slices, without.slices, strict=True)):
        changed = np.abs(ct.hu.astype(int) - empty.hu) > 30
        if changed.any():
            row, index_marked = min(nodes, key=lambda node: abs(node[1] - index))
            reach = np.hypot(rows - row.row, columns - row.col)[changed].max() * spacing
            shown.setdefault(row.node, {})[index - index_marked] = reach
    assert set(shown) == set(STUDY_LABELS)
    for reaches in shown.values():
        steps = sorted(reaches)
        assert 2 <= len(steps) <= 4
        assert steps == list(range(steps[0], steps[-1] + 1))
        assert 2 < reaches[0] < 16  # mm: it is where the table says
        assert reaches[0] > 0.95 * max(reaches.values())
        if len(steps) > 2:
            assert max(reaches[steps[0]], reaches[steps[-1]]) < 0.9 * reaches[0]


def test_it_is_the_same_each_time(study):
    files, table = sample_study(lambda _: None)
    assert table == study[1]
    assert [(file.name, file.data) for file in files] == [(file.name, file.data) for file in study[0]]
    assert len({file.data for file in files}) == STUDY_SLICES


def test_it_is_nobody_of_a_cohort_of_the_same_seed(study, tmp_path):
    write_cohort(tmp_path / "cohort", 1, 2, 22, workers=1, advance=lambda _: None)
    listing = list_series([*study[0], *sorted((tmp_path / "cohort").rglob("*.dcm"))])
    assert not listing.refused
    assert len({series.study_instance_uid for series in listing.series}) == 2


def test_dciodvfy_finds_no_error(study, tmp_path):
    if shutil.which("dciodvfy") is None:
        assert not os.environ.get("CI"), "dciodvfy is missing: install dicom3tools"
        pytest.skip("dciodvfy is missing: install dicom3tools")
    for file in study[0][::10]:
        path = tmp_path / file.name
        path.write_bytes(file.data)
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert "CTImage" in lines
        assert not [line for line in lines if line.startswith("Error")]


def test_the_demo_bundle_calls_the_nodes_rightly(stack, nodes):
    pytest.importorskip("onnxruntime")
    from lymphcad_client.edge.scorer import EdgeScorer

    with EdgeScorer(Bundle(DEMO), runner="onnxruntime") as scorer:
        for row, index in nodes:
            finding = scorer.score(stack.slices[index], row.row, row.col)
            expected = "metastatic" if STUDY_LABELS[row.node] else "benign"
            assert finding.call == expected
            assert abs(finding.probability - finding.threshold) > 0.1  # so another runner says the same
