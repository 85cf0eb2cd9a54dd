"""Images that other processes read: the same results in the same order, whatever happens to the processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import deadly
import numpy as np
import pytest
from lymphcad_client.batch import score_many
from lymphcad_client.reading import ProcessReader, digest_of, read_files
from lymphcad_client.workers import Workers
from pydicom import dcmread
from watching import CT, Answers

from lymphcad.geometry import Window
from lymphcad.images import ImageFinder
from lymphcad.tables import NodeRow


@pytest.fixture
def nodes(tmp_path):
    """Return nodes of two files, of which some are refused for their row, their file or the table's line."""
    for name in "ab":
        shutil.copy(CT, tmp_path / name)
    images = {7: "gone", 31: "a/b"}
    rows = [(images.get(line % 50, "ab"[line // 3 % 2]), float(line % 60)) for line in range(300)]
    return [NodeRow(line, image, row, 5.0, f"n{line}") for line, (image, row) in enumerate(rows)]


def told(results):
    return [(one.node, one.status, one.reason, one.finding and one.finding.probability, one.input_sha256, one.study,
             one.path) for one in results]  # fmt: skip


@pytest.fixture
def alone(nodes, tmp_path):
    """Return what one process makes of it."""
    results = told(score_many(nodes, Answers(), base=tmp_path))
    assert {result[1] for result in results} == {"scored", "refused", "failed"}
    assert [result[0] for result in results] == nodes
    return results


def test_the_same_in_the_same_order(nodes, alone, tmp_path):
    results = list(score_many(nodes, Answers(), base=tmp_path, jobs=2))
    assert told(results) == alone
    assert all(result.ct is None for result in results)


def test_processes_that_are_killed_lose_nothing(nodes, alone, tmp_path):
    scorer, once = Answers(), Answers()
    list(score_many(nodes, once, base=tmp_path))
    results = []
    for result in score_many(nodes, scorer, base=tmp_path, jobs=2):
        results.append(result)
        if len(results) in (40, 240):  # what was in flight at the first is done at the second
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
    assert told(results) == alone
    assert sorted(scorer.nodes) == sorted(once.nodes)


def test_an_image_that_ends_its_process_is_refused_alone(nodes, alone, tmp_path, monkeypatch):
    (tmp_path / deadly.NAME).touch()
    monkeypatch.setenv("PYTHONPATH", deadly.path_with_hook(tmp_path))
    for line in (20, 21):
        nodes[line] = NodeRow(line, deadly.NAME, 9.0, 5.0, f"n{line}")
    results = list(score_many(nodes, Answers(), base=tmp_path, jobs=2))
    changed = [line for line, (one, other) in enumerate(zip(told(results), alone, strict=True)) if one != other]
    assert changed == [20, 21]
    for line in changed:
        assert results[line].node is nodes[line]
        assert results[line].status == "refused"
        assert results[line].reason.startswith("unreadable: the process that read this image was ended twice")
        assert results[line].path == tmp_path / deadly.NAME


def test_stopped_early_no_process_is_left(nodes, tmp_path):
    results = score_many(nodes, Answers(), base=tmp_path, jobs=2)
    next(results)
    assert len(multiprocessing.active_children()) >= 2
    results.close()
    assert not multiprocessing.active_children()


def test_what_is_read_ahead_is_bounded(nodes, tmp_path):
    given = []

    def rows():
        for node in nodes * 10:
            given.append(node)
            yield node

    with Workers(1) as workers:
        reader = ProcessReader(ImageFinder(tmp_path, []), Answers.manifest.preprocess, workers)
        chunks = reader.chunks(rows())
        assert next(chunks) == nodes[:8]
        assert len(given) == 8
    results = score_many(rows(), Answers(), base=tmp_path, jobs=1)
    given.clear()
    next(results)
    assert len(given) <= 3 * 8 + 8 * Answers.at_once + 8
    results.close()


def window(image=None, center=(40.25, 41.5), spacing=(0.5, 0.75)):
    return Window(np.arange(80 * 96, dtype=np.int16).reshape(80, 96) if image is None else image, center, spacing)


def test_the_digest_is_of_what_the_graph_is_given():
    first = digest_of(window())
    assert len(first) == 64
    assert digest_of(window()) == first
    changed = np.arange(80 * 96, dtype=np.int16).reshape(80, 96)
    others = [
        window(changed.reshape(96, 80)),
        window(changed.T.copy().reshape(80, 96)),
        window(center=(41.5, 40.25)),
        window(spacing=(0.75, 0.5)),
        window(center=(40.25, 41.501)),
        window(spacing=(0.5, 0.7501)),
    ]
    changed = changed.copy()
    changed[79, 95] += 1
    digests = {first, *(digest_of(other) for other in [*others, window(changed)])}
    assert len(digests) == 8
    wide = np.asfortranarray(np.arange(80 * 96, dtype=">i2").reshape(80, 96))
    assert digest_of(window(wide)) == first  # of the values, however they lie in memory


def test_two_nodes_of_one_image_are_read_once(tmp_path, monkeypatch):
    from lymphcad_client import reading

    opened = []
    read = reading.read_image
    monkeypatch.setattr(reading, "read_image", lambda path, **options: opened.append(path) or read(path, **options))
    path = Path(CT)
    files = [(NodeRow(line, CT, 20.0 + line, 30.0, str(line)), path) for line in range(4)]
    first, *others = read_files(files, Answers.manifest.preprocess)
    assert opened == [path]
    assert first.ct is None
    assert len({one.input_sha256 for one in [first, *others]}) == 4
    files[2] = (NodeRow(2, CT, 22.0, 30.0, "2", spacing_mm=9.0), path)
    assert "The table says 9 mm" in read_files(files, Answers.manifest.preprocess)[2].assumptions
    assert opened == [path] * 4


def test_the_study_is_known_by_a_digest_of_its_uid(tmp_path):
    import hashlib

    files = [(NodeRow(1, CT, 30.0, 30.0, "1"), Path(CT)), (NodeRow(2, CT, 9999.0, 30.0, "2"), Path(CT))]
    uid = str(dcmread(CT).StudyInstanceUID)
    for one in read_files(files, Answers.manifest.preprocess):
        assert one.study == hashlib.sha256(uid.encode()).hexdigest()
