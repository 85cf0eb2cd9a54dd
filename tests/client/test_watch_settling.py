"""When a study is scored: after it has stopped growing, and as it is then."""

from __future__ import annotations

import os
import shutil

import pytest
from watching import Answers, Clock, drop, hidden, rows_of, use, visible, watch, write_table

pytestmark = pytest.mark.usefixtures("no_waiting")


def test_a_growing_study_is_left_alone(boxes, monkeypatch):
    study = drop(boxes[0], "a", 20)

    def grow(now):
        if now <= 12:
            with (study / "nodes.csv").open("a") as table:
                table.write(f"ct.dcm,{20 + now:.0f},5\n")

    clock = use(Clock(grow), monkeypatch)
    watch(boxes, Answers(), settle=5.0)
    assert 17 <= clock.now < 19
    assert len(rows_of(boxes[1] / "a")) == 13


def test_a_file_that_is_written_over_counts_as_growing(boxes, monkeypatch):
    """Its size stays, so only the time of its last change tells."""
    study = drop(boxes[0], "a", 20)

    def write_over(now):
        if study.exists() and now <= 12:
            os.utime(study / "ct.dcm", ns=(0, int(now * 10**9)))

    clock = use(Clock(write_over), monkeypatch)
    watch(boxes, Answers(), settle=5.0)
    assert 17 <= clock.now < 19


def test_the_table_may_come_last(boxes, monkeypatch):
    study = drop(boxes[0], "a")

    def write(now):
        if now > 500 and study.exists() and not (study / "nodes.csv").exists():
            write_table(study, 20)

    clock = use(Clock(write), monkeypatch)
    (event,) = watch(boxes, Answers(), settle=5.0)
    assert event.status == "done"
    assert 505 <= clock.now < 508


@pytest.mark.parametrize("table", [None, "folder", "link", "pipe"])
def test_without_a_table_it_is_refused_in_the_end(boxes, monkeypatch, tmp_path, table):
    study = drop(boxes[0], "a")
    if table == "folder":
        (study / "nodes.csv").mkdir()
    elif table == "link":
        write_table(tmp_path, 20)
        (study / "nodes.csv").symlink_to(tmp_path / "nodes.csv")
    elif table == "pipe":
        os.mkfifo(study / "nodes.csv")
    clock = use(Clock(), monkeypatch)
    (event,) = watch(boxes, Answers(), settle=5.0)
    assert (event.status, event.verdict.reason) == ("refused", "no_table")
    assert 600 <= clock.now < 602
    said = (boxes[0] / "refused" / "a" / "REFUSED.txt").read_text()
    assert said.startswith("there is no nodes.csv in the folder")
    assert said.count("\n") == 1


def test_once_waits_for_what_was_there_at_the_start(boxes, monkeypatch):
    drop(boxes[0], "a", 20)

    def another(now):
        drop(boxes[0], f"late {now}", 20)

    clock = use(Clock(another), monkeypatch)
    (event,) = watch(boxes, Answers(), settle=5.0)
    assert event.status == "done"
    assert 5 <= clock.now < 7


def test_what_changes_while_others_are_scored_settles_again(boxes):
    drop(boxes[0], "a", 20)
    other = drop(boxes[0], "b", 20)
    scorer = Answers(lambda: len(scorer.nodes) == 1 and write_table(other, 21, 22))
    assert [event.status for event in watch(boxes, scorer)] == ["done", "done"]
    assert sorted(scorer.nodes) == [(20, 5), (21, 5), (22, 5)]


def test_what_changes_while_it_is_scored_is_scored_as_it_is_then(boxes):
    study = drop(boxes[0], "a", 20)
    scorer = Answers(lambda: len(scorer.nodes) == 1 and write_table(study, 21, 22))
    events = watch(boxes, scorer)
    assert [event.status for event in events] == ["changed", "done"]
    assert [row["row"] for row in rows_of(boxes[1] / "a")] == ["21", "22"]
    assert visible(boxes[1]) == ["a"]
    assert hidden(boxes[1]) == []


def test_what_goes_away_while_it_is_scored(boxes):
    study = drop(boxes[0], "a", 20, 21)
    drop(boxes[0], "b", 22)
    with (study / "nodes.csv").open("a") as table:
        table.write("gone.dcm,20,5\n1.2.3,20,5\n")
    events = watch(boxes, Answers(lambda: shutil.rmtree(study, ignore_errors=True)))
    assert [event.status for event in events] == ["changed", "done"]
    assert visible(boxes[1]) == ["b"]
    assert hidden(boxes[1]) == []
