"""What is no study, cannot be moved or read, and folders that cannot be watched."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from lymphcad_client.watch.files import check_apart
from lymphcad_client.watch.inbox import Inbox
from lymphcad_client.watch.outbox import Outbox
from lymphcad_client.watch.watcher import Watcher
from watching import Answers, Clock, drop, rows_of, use, visible, watch

from lymphcad.errors import CommandError, InterruptedByUser

pytestmark = pytest.mark.usefixtures("no_waiting")


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
