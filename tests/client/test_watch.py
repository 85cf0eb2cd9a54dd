"""What becomes of a study that is dropped into the inbox: each of its states, with a scorer whose answer is known."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lymphcad_client.results import COLUMNS
from lymphcad_client.watch.files import check_apart
from lymphcad_client.watch.inbox import Inbox
from lymphcad_client.watch.outbox import Outbox
from lymphcad_client.watch.watcher import Watcher
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lymphcad.bundle import Manifest, Preprocess
from lymphcad.errors import CommandError, InterruptedByUser, Reason, Refusal, ServerError
from lymphcad.finding import Finding

CT = get_testdata_file("CT_small.dcm", download=False)
UID = str(dcmread(CT).SOPInstanceUID)


class Answers:
    """A scorer that refuses row 7 and fails in row 8, and does something of the test's at each node."""

    about, at_once = "Made for the test.", 3
    digest = "0" * 64
    manifest = Manifest(
        name="made",
        architecture="none",
        preprocess=Preprocess(field_of_view_mm=40, window_level_hu=50, window_width_hu=400, size=32),
        map_size=(8, 8),
        evidence_scale=1.0,
        temperature=1.0,
        threshold=0.5,
        precisions=("fp32",),
        golden={},
        training={},
        metrics={},
        versions={},
        files={},
    )

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile
        self.nodes = []
        self.lock = threading.Lock()

    def score(self, ct, row, col):
        del ct
        with self.lock:
            self.nodes.append((row, col))
            self.meanwhile()
        if row == 7:
            raise Refusal(Reason.NODE_OUTSIDE_IMAGE, "made for the test")
        if row == 8:
            raise ServerError(Reason.RUNNER_ERROR, "made for the test")
        return Finding(row / 1000, "benign", 0.5, np.zeros((32, 32), np.uint8), "made@0")


@pytest.fixture
def boxes(tmp_path):
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    outbox.mkdir()
    return inbox, outbox


def drop(inbox, name, *nodes, image="ct.dcm"):
    """Put a study into the inbox, with the nodes' rows in its table."""
    study = inbox / name
    study.mkdir()
    shutil.copy(CT, study / "ct.dcm")
    if nodes:
        write_table(study, *nodes, image=image)
    return study


def write_table(study, *nodes, image="ct.dcm"):
    (study / "nodes.csv").write_text("image,row,col\n" + "".join(f"{image},{row},5\n" for row in nodes))


def watch(boxes, scorer, *, settle=0.0, **options):
    """Let a new watcher do what is there; return what it reported."""
    events = []
    Watcher(Inbox(boxes[0]), Outbox(boxes[1]), scorer, events.append, settle=settle, **options).run(once=True)
    return events


def rows_of(results):
    with (results / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames) == COLUMNS
        return list(reader)


def record_of(results):
    return json.loads((results / "study.json").read_text())


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


class Clock:
    """In place of the module time: sleeping takes no time, and something of the test's happens meanwhile."""

    def __init__(self, meanwhile=lambda _: None):
        self.now, self.meanwhile = 0.0, meanwhile

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 2000
        self.meanwhile(self.now)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    use(Clock(), monkeypatch)


def use(clock, monkeypatch):
    monkeypatch.setattr("lymphcad_client.watch.watcher.time", clock)
    return clock


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


def test_what_is_no_study(boxes, tmp_path):
    inbox = boxes[0]
    (inbox / "loose.dcm").write_text("a file")
    drop(inbox, ".hidden", 20)
    drop(inbox, "Done", 20)
    drop(tmp_path, "elsewhere", 20)
    (inbox / "link").symlink_to(tmp_path / "elsewhere")
    (inbox / "refused").mkdir()
    drop(inbox / "refused", "old", 20)
    assert watch(boxes, Answers()) == []
    assert visible(boxes[1]) == []
    assert visible(inbox) == ["Done", "done", "link", "loose.dcm", "refused"]


@pytest.mark.parametrize("way", ["../b/ct.dcm", "absolute", "link.dcm"])
def test_images_of_other_folders_are_refused(boxes, way):
    study = drop(boxes[0], "a", 20, image=str(boxes[0] / "b" / "ct.dcm") if way == "absolute" else way)
    drop(boxes[0], "b")
    (study / "link.dcm").symlink_to(boxes[0] / "b" / "ct.dcm")
    shutil.move(boxes[0] / "b", boxes[0] / ".b")  # no study
    (boxes[0] / "b").symlink_to(boxes[0] / ".b")
    scorer = Answers()
    watch(boxes, scorer)
    assert scorer.nodes == []
    assert "leads out of the study's folder" in rows_of(boxes[1] / "a")[0]["reason"]


def test_a_study_with_a_folder_that_may_not_be_read(boxes, monkeypatch):
    drop(boxes[0], "a", 20, image="1.2.3")
    drop(boxes[0], "b", 20)

    def fail(_):
        raise CommandError("a folder below the given ones may not be read")

    monkeypatch.setattr("lymphcad.images.list_images", fail)
    assert [event.status for event in watch(boxes, Answers())] == ["refused", "done"]
    assert "may not be read" in rows_of(boxes[1] / "a")[0]["reason"]


def test_a_study_that_cannot_be_moved_holds_nobody_up(boxes, monkeypatch):
    """It is said once, tried again, and never scored again, even if its results are taken away."""
    held, other = drop(boxes[0], "a", 20), drop(boxes[0], "b", 21)
    rename, moves = type(held).rename, []

    def hold(path, target):
        if path == held:
            moves.append(target)
            if len(moves) < 5:
                raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(type(held), "rename", hold)
    scorer = Answers()
    events = []

    def look(now):
        shutil.rmtree(boxes[1] / "a", ignore_errors=True)
        if now > 20:
            raise InterruptedByUser("made for the test")

    use(Clock(look), monkeypatch)
    watcher = Watcher(Inbox(boxes[0]), Outbox(boxes[1]), scorer, events.append, settle=5.0)
    with pytest.raises(InterruptedByUser):
        watcher.run()
    assert [event.status for event in events] == ["held", "done", "done"]
    assert events[0].why == "Permission denied"
    assert scorer.nodes == [(20, 5), (21, 5)]
    assert not held.exists()
    assert not other.exists()


def test_once_ends_with_a_study_that_cannot_be_moved(boxes, monkeypatch):
    study = drop(boxes[0], "a", 20)
    (study / "REFUSED.txt").mkdir()  # where the reason must go
    (study / "nodes.csv").write_text("no table")
    assert [event.status for event in watch(boxes, Answers())] == ["held"]
    assert study.exists()


@pytest.mark.parametrize("name", ["n" * 255, "ß" * 127, "n-2", "a b\nc"])
def test_names_that_are_long_or_odd(boxes, name):
    for row in (20, 21, 22):
        drop(boxes[0], name, row)
        watch(boxes, Answers())
    assert len(visible(boxes[1])) == len(visible(boxes[0] / "done")) == 3
    assert sorted(rows_of(boxes[1] / found)[0]["row"] for found in visible(boxes[1])) == ["20", "21", "22"]
    assert (boxes[1] / name).exists()


def test_what_a_killed_watcher_left_is_removed_and_nothing_else(boxes):
    for name, file in ((".a-part", "results.csv.part"), (".b-part", "diary.txt"), ("c-part", "results.csv")):
        (boxes[1] / name).mkdir()
        (boxes[1] / name / file).write_text("something")
    (boxes[1] / ".d-part").mkdir()
    Outbox(boxes[1])
    assert sorted(path.name for path in boxes[1].iterdir()) == [".b-part", "c-part"]


def test_folders_within_each_other(tmp_path, boxes, monkeypatch):
    inbox, outbox = boxes
    (inbox / "deep").mkdir()
    (tmp_path / "link").symlink_to(inbox)
    (tmp_path / "deep link").symlink_to(inbox / "deep")
    monkeypatch.chdir(inbox / "deep")
    inside = (inbox, inbox / "new" / "deep", tmp_path / "link", tmp_path / "deep link", Path("out"))
    for other in inside:
        with pytest.raises(CommandError, match="one in the other"):
            check_apart(inbox, other)
        if other.exists():
            with pytest.raises(CommandError, match="one in the other"):
                check_apart(other, inbox)
    check_apart(inbox, outbox)
    check_apart(inbox, tmp_path / "new")
    with pytest.raises(CommandError, match="there is no folder"):
        Inbox(tmp_path / "new")


def test_an_inbox_that_cannot_have_its_folders(boxes):
    (boxes[0] / "done").write_text("a file")
    with pytest.raises(CommandError, match="cannot have its folders"):
        Inbox(boxes[0])


def test_the_share_goes_away(boxes, monkeypatch):
    use(Clock(lambda _: shutil.rmtree(boxes[0], ignore_errors=True)), monkeypatch)
    with pytest.raises(CommandError, match="cannot be read"):
        Watcher(Inbox(boxes[0]), Outbox(boxes[1]), Answers(), SimpleNamespace).run()


def test_ctrl_c_leaves_no_half(boxes):
    study = drop(boxes[0], "a", 20, 21)

    def stop(_):
        raise KeyboardInterrupt

    watcher = Watcher(Inbox(boxes[0]), Outbox(boxes[1]), Answers(), stop, settle=0.0)
    with pytest.raises(KeyboardInterrupt):  # after it was moved
        watcher.run()
    assert visible(boxes[0] / "done") == ["a"]
    (boxes[0] / "done" / "a").rename(study)
    shutil.rmtree(boxes[1] / "a")

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, InterruptedByUser)):
        watch(boxes, Answers(interrupt))
    assert list(boxes[1].iterdir()) == []
    assert study.exists()
