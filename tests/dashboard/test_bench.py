"""What a session has on its bench, with an engine whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_dashboard.bench import Bench
from lymphcad_dashboard.engine import Answer

from lymphcad.errors import Reason, ServerError, TableError
from lymphcad.memory_file import MemoryFile
from lymphcad.series import ImageRef, Series, Stack
from lymphcad.slice import CtSlice


class Probe:
    """An engine on the probe bundle that can be away, as a server can."""

    def __init__(self, scorer) -> None:
        self.scorer, self.is_away, self.asked = scorer, False, 0

    def score(self, ct, row, col):
        self.asked += 1
        if self.is_away:
            raise ServerError(Reason.SERVER_AWAY, "the server does not answer: start it")
        return Answer(self.scorer.score(ct, row, col), self.scorer.manifest, 0.01)


@pytest.fixture(scope="module")
def scorer(probe_bundle):
    with EdgeScorer(probe_bundle, runner="onnxruntime") as opened:
        yield opened


@pytest.fixture
def engine(scorer):
    return Probe(scorer)


def _stack(*slices: CtSlice) -> Stack:
    images = tuple(ImageRef(MemoryFile(ct.path.name, b""), ct.frame) for ct in slices)
    series = Series(
        series_instance_uid="1.2", study_instance_uid="1", modality="CT", description="", number=1, body_part="NECK",
        thickness_mm=2.5, contrast="", study_description="", study_date="", patient_name="", patient_id="",
        rows=256, columns=256, images=images,
    )  # fmt: skip
    return Stack(series=series, slices=slices, refused=(), note="")


@pytest.fixture
def bench(slice_of):
    """Return a bench with three slices of growing brightness: the probe's probability grows with it."""
    from dataclasses import replace
    from pathlib import Path

    slices = [
        replace(slice_of(np.full((256, 256), hu)), path=Path(f"study/{name}.dcm"), sop_instance_uid=f"1.2.{hu}")
        for name, hu in (("a", 0), ("b", 100), ("c", 200))
    ]
    bench = Bench()
    bench.show(_stack(*slices))
    return bench


def test_a_click_is_scored_and_selected(bench, engine, scorer):
    mark = bench.add(1, 100.123, 50.0)
    assert bench.selected == mark.number
    assert (mark.node.image, mark.node.row, mark.node.col) == ("study/b.dcm", 100.12, 50.0)
    assert bench.reading(mark).is_open
    assert bench.score([engine]) == 1
    reading = bench.reading(mark)
    assert reading.result.status == "scored"
    assert reading.result.finding.probability == scorer.score(bench.stack.slices[1], 100.12, 50.0).probability
    assert (bench.latencies[0].n, bench.latencies[0].mean_ms) == (1, pytest.approx(10))


def test_nothing_is_asked_twice(bench, engine):
    bench.add(0, 100, 100)
    bench.score([engine])
    bench.score([engine])
    assert engine.asked == 1


def test_a_node_that_cannot_be_scored_is_refused_and_not_asked_again(bench, engine):
    mark = bench.add(0, 5000, 100)
    bench.score([engine])
    assert bench.reading(mark).result.status == "refused"
    assert bench.reading(mark).result.reason.startswith("node_outside_image: ")
    assert bench.open_readings(1) == 0


def test_a_click_while_the_server_is_away_is_answered_when_it_is_back(bench, engine):
    engine.is_away = True
    marks = [bench.add(0, 100, 100), bench.add(1, 100, 100)]
    assert bench.score([engine]) == 0
    assert bench.reading(marks[0]).result.reason.startswith("server_away: ")
    assert engine.asked == 1  # the second would wait for the same server
    assert bench.open_readings(1) == 2
    engine.is_away = False
    assert bench.score([engine]) == 2
    assert [bench.reading(mark).result.status for mark in marks] == ["scored", "scored"]


def test_one_engine_that_is_away_does_not_keep_the_other_from_answering(bench, engine, scorer):
    away = Probe(scorer)
    away.is_away = True
    mark = bench.add(0, 100, 100)
    bench.score([away, engine])
    assert [bench.reading(mark, which).result.status for which in (0, 1)] == ["failed", "scored"]
    assert bench.open_readings(2) == 1


def test_the_most_probable_stands_first_and_what_has_no_probability_last(bench, engine):
    outside, dark, bright = bench.add(0, -100, 0), bench.add(0, 100, 100), bench.add(2, 100, 100)
    bench.score([engine])
    assert bench.in_order() == [bright, dark, outside]


def test_a_mark_that_was_moved_is_scored_where_it_is(bench, engine, scorer):
    mark = bench.add(0, 100, 100)
    bench.score([engine])
    bench.move(mark.number, 2, 90, 80)
    moved = bench.marks[mark.number]
    assert (moved.index, moved.node.image, moved.node.node) == (2, "study/c.dcm", "1")
    assert bench.reading(moved).is_open
    bench.score([engine])
    expected = scorer.score(bench.stack.slices[2], 90, 80).probability
    assert bench.reading(moved).result.finding.probability == expected


def test_a_deleted_mark_is_gone_and_its_number_is_not_given_again(bench, engine):
    first = bench.add(0, 100, 100)
    bench.score([engine])
    bench.delete(first.number)
    assert (bench.marks, bench.selected) == ({}, None)
    assert bench.add(0, 100, 100).number == first.number + 1


def test_another_series_takes_the_marks_with_it(bench, engine):
    bench.add(0, 100, 100)
    bench.score([engine])
    bench.show(bench.stack)
    assert not bench.marks
    assert bench.open_readings(1) == 0


def test_every_row_of_a_table_becomes_a_mark(bench, engine):
    table = (
        "image,row,col,node,frame,spacing_mm\n"
        "study/a.dcm,100,100,by path,,\n"
        "1.2.100,100,100,by UID,,\n"
        "elsewhere/c.dcm,100,100,by file name,1,0.9\n"
        "unknown.dcm,100,100,not here,,\n"
        "study/a.dcm,100,100,no such frame,7,\n"
        "study/a.dcm,here,100,no number,,\n"
    )
    marks = bench.load(MemoryFile("nodes.csv", table.encode()))
    assert [mark.index for mark in marks] == [0, 1, 2, None, None, None]
    assert bench.score([engine]) == 6
    results = {mark.node.node: bench.reading(mark).result for mark in marks}
    assert [results[name].status for name in ("by path", "by UID", "by file name")] == ["scored"] * 3
    assert "0.9 mm" in results["by file name"].reason  # what the table says and the file contradicts
    codes = [results[name].reason.split(":")[0] for name in ("not here", "no such frame", "no number")]
    assert codes == ["unknown_image", "no_such_frame", "node_not_a_number"]


def test_an_image_that_several_slices_answer_to_is_not_guessed(bench, engine):
    from dataclasses import replace
    from pathlib import Path

    twice = replace(bench.stack.slices[0], path=Path("other/b.dcm"), sop_instance_uid="1.2.9")
    bench.show(_stack(*bench.stack.slices, twice))
    (mark,) = bench.load(MemoryFile("nodes.csv", b"image,row,col\nb.dcm,100,100\n"))
    bench.score([engine])
    assert bench.reading(mark).result.reason.startswith("ambiguous_image: ")


def test_a_table_that_is_none_is_refused_as_a_whole(bench):
    with pytest.raises(TableError, match="lacks the column"):
        bench.load(MemoryFile("nodes.csv", b"a,b\n1,2\n"))
    assert not bench.marks
