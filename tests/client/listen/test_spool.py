"""A study is removed only when nothing of it is arriving, and half of an object is never taken for a whole."""

from __future__ import annotations

import threading

import pytest
from lymphcad_client.listen.arrivals import Arrivals
from lymphcad_client.listen.spool import Spool, is_result
from lymphcad_client.pacs.receiving import PART, Identity
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage

from lymphcad.errors import CommandError

ASSOCIATION = threading.current_thread()
STUDY = Spool.name(Identity("", "", "1.2.3", ""))


@pytest.fixture
def spool(tmp_path):
    found = Spool(tmp_path)
    (found.received / STUDY).mkdir()
    (found.received / STUDY / "a.dcm").write_bytes(b"a")
    return found


def test_a_study_is_removed_with_the_record_of_what_was_stored(spool):
    (spool.stored.path / f"{STUDY}-2").mkdir()
    (spool.failed.path / STUDY).mkdir()
    assert spool.remove(STUDY, Arrivals(), 0)
    assert not any(spool.received.iterdir())
    assert not any(spool.stored.path.iterdir())
    assert any(spool.failed.path.iterdir())


def test_not_while_an_object_is_being_saved(spool):
    arrivals = Arrivals()
    saver = threading.Thread(target=arrivals.begin, args=[STUDY])
    saver.start()
    saver.join()
    assert arrivals.quiet_s(STUDY) == 0
    assert not spool.remove(STUDY, arrivals, 0)
    assert (spool.received / STUDY / "a.dcm").exists()


def test_not_when_an_object_has_come_since_it_was_decided(spool):
    arrivals = Arrivals()
    seen = arrivals.all(STUDY)
    arrivals.begin(STUDY)
    arrivals.saved(ASSOCIATION, STUDY, is_new=False)
    arrivals.closed(ASSOCIATION)
    assert not spool.remove(STUDY, arrivals, seen)
    assert spool.remove(STUDY, arrivals, arrivals.all(STUDY))


def test_what_was_not_acknowledged_goes_at_the_start(spool, tmp_path):
    part = spool.received / STUDY / f"{PART}1"
    part.write_bytes(b"")
    (spool.received / ".going-1").mkdir()
    before = spool.fingerprint(STUDY)
    assert Spool(tmp_path).fingerprint(STUDY) == before
    assert [path.name for path in spool.received.rglob("*")] == [STUDY, "a.dcm"]


def test_a_refused_object_of_an_association_that_brought_nothing_else():
    arrivals = Arrivals()
    arrivals.refused(ASSOCIATION, "truncated")
    brought = arrivals.closed(ASSOCIATION)
    assert (brought.new, brought.same, brought.refused) == (0, 0, {"truncated": 1})
    assert arrivals.closed(ASSOCIATION) is None


def test_a_study_does_not_wait_for_an_association_whose_thread_is_dead():
    arrivals, association = Arrivals(), threading.Thread(target=int)
    arrivals.begin(STUDY)
    arrivals.saved(ASSOCIATION, STUDY, is_new=True)
    assert arrivals.quiet_s(STUDY) == 0
    arrivals.closed(ASSOCIATION)
    arrivals.begin(STUDY)
    arrivals.saved(association, STUDY, is_new=True)
    assert arrivals.quiet_s(STUDY) > 0


@pytest.mark.parametrize(
    ("sop_class", "manufacturer", "expected"),
    [(ComprehensiveSRStorage, "LymphCAD", True), (CTImageStorage, "LymphCAD", False), (CTImageStorage, "X", False)],
)
def test_results_are_known_again(sop_class, manufacturer, expected):
    assert is_result(Identity(sop_class, "1.2", "1.2.3", manufacturer)) is expected


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "received").write_text("a file")
    with pytest.raises(CommandError, match="cannot be used"):
        Spool(tmp_path)
