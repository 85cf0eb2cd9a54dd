"""What becomes of a study that is dropped into the inbox, and of its results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watching import UID, Answers, drop, hidden, record_of, rows_of, visible, watch, write_table

pytestmark = pytest.mark.usefixtures("no_waiting")


def test_a_study_is_scored_and_moved(boxes):
    study = drop(boxes[0], "Doe^Jane", 20, 7, 8)
    with (study / "nodes.csv").open("a") as table:
        table.write(f"{UID},30,5\n")
    (event,) = watch(boxes, Answers())
    assert (event.status, event.verdict.reason, event.verdict.already) == ("done", "", False)
    results = boxes[1] / "Doe^Jane"
    rows = rows_of(results)
    assert [row["status"] for row in rows] == ["scored", "refused", "failed", "scored"]
    assert visible(results) == ["RESEARCH_USE_ONLY.txt", "overlays", "results.csv", "study.json"]
    assert [row["heatmap"] for row in rows] == ["overlays/000001.png", "", "", "overlays/000004.png"]
    assert visible(results / "overlays") == ["000001.png", "000004.png"]
    assert record_of(results) == {
        "fingerprint": event.fingerprint,
        "status": "done",
        "n": 4,
        "scored": 2,
        "refused": 1,
        "failed": 1,
        "bundle": "made@000000000000",
        "bundle_sha256": Answers.digest,
        "scorer": "Made for the test.",
        "notice": "Research use only; not a medical device",
    }
    assert visible(boxes[0]) == ["done", "refused"]
    assert visible(boxes[0] / "done" / "Doe^Jane") == ["ct.dcm", "nodes.csv"]
    assert hidden(boxes[1]) == []


def test_without_pictures(boxes):
    drop(boxes[0], "a", 20)
    watch(boxes, Answers(), overlays=False)
    assert not (boxes[1] / "a" / "overlays").exists()


def test_a_table_that_cannot_be_used(boxes):
    study = drop(boxes[0], "a")
    (study / "nodes.csv").write_text("image,Doe_Jane\nct.dcm,1\n")
    (event,) = watch(boxes, Answers())
    assert (event.status, event.verdict.reason) == ("refused", "bad_table")
    said = (boxes[0] / "refused" / "a" / "REFUSED.txt").read_text()
    assert said == "nodes.csv: the table lacks the columns row, col; found: image, Doe_Jane\n"
    assert visible(boxes[0]) == ["done", "refused"]
    assert visible(boxes[1]) == []


@pytest.mark.parametrize("row", [7, 8])
def test_not_one_node_scored(boxes, row):
    drop(boxes[0], "a", row, row)
    (event,) = watch(boxes, Answers())
    assert (event.status, event.verdict.reason) == ("refused", "none_scored")
    assert record_of(boxes[1] / "a")["status"] == "refused"
    assert [one["reason"].split(": ")[1] for one in rows_of(boxes[1] / "a")] == ["made for the test"] * 2
    said = (boxes[0] / "refused" / "a" / "REFUSED.txt").read_text()
    assert said.startswith("none of the 2 nodes could be scored")
    assert said.count("\n") == 1


def test_results_are_on_the_disk_before_they_have_their_name(boxes, monkeypatch):
    """And they before the study is moved: a power cut between two steps is no worse than a kill."""
    study = drop(boxes[0], "a", 20)
    steps = []
    fsync, rename = os.fsync, type(study).rename

    def note_sync(number):
        steps.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        fsync(number)

    def note_rename(path, target):
        steps.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(type(study), "rename", note_rename)
    watch(boxes, Answers())
    named, moved = steps.index(("rename", ".a-part")), steps.index(("rename", "a"))
    part, inbox = boxes[1] / ".a-part", boxes[0]
    files = ("results.csv", "study.json", "RESEARCH_USE_ONLY.txt", "overlays", "overlays/000001.png")
    assert set(steps[:named]) >= {str(part), *(f"{part / file}" for file in files)}
    assert str(boxes[1]) in steps[named:moved]
    assert steps[moved + 1 :] == [str(inbox / "done"), str(inbox)]


def test_studies_of_one_name_stand_side_by_side(boxes):
    for number in (1, 2, 3):
        drop(boxes[0], "a", 20 + number)
        watch(boxes, Answers())
        drop(boxes[0], "a", 7, *[7] * number)
        watch(boxes, Answers())
    assert visible(boxes[0] / "done") == visible(boxes[0] / "refused") == ["a", "a-2", "a-3"]
    found = [rows_of(boxes[1] / name)[0]["row"] for name in ("a", "a-2", "a-3", "a-4", "a-5", "a-6")]
    assert found == ["21", "7", "22", "7", "23", "7"]
    assert visible(boxes[1]) == ["a", "a-2", "a-3", "a-4", "a-5", "a-6"]


def test_two_studies_alike_but_for_the_name_are_two(boxes):
    for name in ("a", "a-2"):
        study = drop(boxes[0], name, 20)
        for file in study.iterdir():
            os.utime(file, ns=(0, 0))
    events = watch(boxes, Answers())
    assert len({event.fingerprint for event in events}) == 2
    assert not any(event.verdict.already for event in events)
    assert visible(boxes[1]) == ["a", "a-2"]


@pytest.mark.parametrize(("row", "to"), [(20, "done"), (7, "refused")])
def test_what_was_scored_before_is_only_moved(boxes, row, to):
    drop(boxes[0], "a", row)
    scorer = Answers()
    watch(boxes, scorer)
    (boxes[1] / "a").rename(boxes[1] / "a-7")  # others have gone since
    (boxes[0] / to / "a").rename(boxes[0] / "a")  # as a kill leaves it, but for the file of the refusal
    before = record_of(boxes[1] / "a-7")
    (event,) = watch(boxes, scorer)
    assert (event.status, event.verdict.already) == (to, True)
    assert (event.verdict.scored, event.verdict.refused) == (before["scored"], before["refused"])
    assert scorer.nodes == [(row, 5)]
    assert visible(boxes[1]) == ["a-7"]
    assert visible(boxes[0] / to) == ["a"]
    assert (boxes[0] / to / "a" / "REFUSED.txt").exists() == (to == "refused")


def test_another_bundle_scores_again(boxes):
    drop(boxes[0], "a", 20)
    watch(boxes, Answers())
    (boxes[0] / "done" / "a").rename(boxes[0] / "a")
    scorer = Answers()
    scorer.digest = "1" * 64
    (event,) = watch(boxes, scorer)
    assert not event.verdict.already
    assert visible(boxes[1]) == ["a", "a-2"]


def test_a_corrected_study_loses_the_reason(boxes):
    study = drop(boxes[0], "a", 7)
    watch(boxes, Answers())
    (boxes[0] / "refused" / "a").rename(study)
    write_table(study, 20)
    watch(boxes, Answers())
    assert visible(boxes[0] / "done" / "a") == ["ct.dcm", "nodes.csv"]
