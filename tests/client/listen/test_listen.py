"""Studies go in, results come out at a real Orthanc, once, whatever happens on the way."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import highdicom as hd
import pydicom
import pytest
from annotating import copy_of
from listening import (
    DEMO,
    LABELS,
    annotation,
    associate,
    file_bytes,
    listening,
    marked_study,
    other_study,
    send_to,
    store,
    wait_for,
)
from lymphcad_client.dicom.codes import PROBABILITY
from lymphcad_client.dicom.study import write_study
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_client.listen.words import line_of
from orthanc import Orthanc
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from lymphcad.bundle import Bundle
from lymphcad.dicom import read_slice
from lymphcad.errors import CommandError, LymphcadError, Reason, ServerError

pytest.importorskip("highdicom")


@pytest.fixture(scope="session")
def whole():
    return marked_study()


@pytest.fixture(scope="session")
def marked(whole):
    """Return the slices with nodes alone: they are quicker to send."""
    marked = {uid for _, uid, _, _ in whole.nodes}
    return replace(whole, cts=[ct for ct in whole.cts if ct.SOPInstanceUID in marked])


@pytest.fixture(scope="module")
def scorer():
    with EdgeScorer(Bundle(DEMO), runner="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with Orthanc(tmp_path_factory.mktemp("pacs") / "orthanc") as started:
        yield started


@pytest.fixture
def empty(pacs):
    """Return the PACS with nothing in it."""
    for study in pacs.get("/studies"):
        pacs.request("DELETE", f"/studies/{study}")
    return pacs


@pytest.fixture(params=["C-STORE"])
def to(request):
    """Return a function that returns what stores files at a PACS."""
    return lambda pacs: send_to(pacs.web if request.param == "STOW-RS" else pacs.address)


@pytest.fixture
def short_pauses(monkeypatch):
    for module in ("listener", "dispatcher"):
        monkeypatch.setattr(f"lymphcad_client.listen.{module}.FIRST_PAUSE_S", 0.1)


def results_in(pacs, study):
    """Return the SRs of LymphCAD of a study in the PACS, as datasets."""
    found = []
    for one, (of_study, sop_class, _) in pacs.instances().items():
        if of_study == study and sop_class == Comprehensive3DSRStorage:
            report = pydicom.dcmread(io.BytesIO(pacs.file(one)))
            found += [report] if report.Manufacturer.startswith("LymphCAD") else []
    return found


def values_in(report):
    """Return the probability of each node that an SR of results holds, by its tracking identifier."""
    found = {}
    for group in hd.sr.srread(io.BytesIO(file_bytes(report))).content.get_planar_roi_measurement_groups():
        (measured,) = group.get_measurements(PROBABILITY)
        found[group.tracking_identifier] = measured.value
    return found


@pytest.mark.parametrize("to", ["C-STORE", "STOW-RS"], indirect=True)
def test_a_study_goes_from_the_pacs_through_the_node_and_its_results_back(tmp_path, empty, scorer, whole, to):
    for one in (*whole.cts, whole.sr):
        empty.put(file_bytes(one))
    study = empty.get("/studies")
    with listening(tmp_path / "node", scorer, to(empty)) as node:
        sent = empty.send("NODE", node.port, study)
        assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (31, 0)
        (scored,) = node.wait("Event")
        assert (scored.status, scored.scored, scored.refused) == ("scored", 4, 0)
        (delivery,) = node.wait("Delivery")
        assert (delivery.status, delivery.stored) == ("stored", 5)
        assert empty.get("/studies") == study  # under the same one
        kinds = [sop_class for _, sop_class, _ in empty.instances().values()]
        assert kinds.count(SecondaryCaptureImageStorage) == 4
        (report,) = results_in(empty, whole.uid)
        values = values_in(report)
        by_uid = {ct.SOPInstanceUID: ct for ct in whole.cts}
        for name, uid, row, col in whole.nodes:
            with_file = tmp_path / "one.dcm"
            with_file.write_bytes(file_bytes(by_uid[uid]))
            alone = scorer.score(read_slice(with_file), row, col)
            assert values[name] == pytest.approx(alone.probability, abs=1e-6)
            assert (alone.call == "metastatic") == LABELS[name]
        before = empty.instances()
        # The whole study again, with the results: all is there, and nothing is to be done.
        empty.send("NODE", node.port, study)
        brought = node.wait("Brought", count=2)[1]
        assert (brought.new, brought.same) == (5, 31)
        store(node.port, other_study(whole, 1).cts[:1])
        node.wait("Event", "waiting")  # it looked at all studies
        assert len(node.of("Event", "scored")) == len(node.of("Delivery")) == 1
        assert empty.instances() == before


def test_a_second_annotation_is_scored_anew(tmp_path, empty, scorer, marked, to):
    by_uid = {ct.SOPInstanceUID: ct for ct in marked.cts}
    nodes = [(name, by_uid[uid], row, col) for name, uid, row, col in marked.nodes]
    with listening(tmp_path, scorer, to(empty)) as node:
        # The images come first and wait, an annotation comes, and later another one.
        assert set(store(node.port, marked.cts)) == {0}
        assert node.wait("Event")[0].status == "waiting"
        assert store(node.port, [annotation(nodes[:1], marked.cts)]) == [0]
        node.wait("Delivery", "stored")
        assert store(node.port, [annotation(nodes[1:3], marked.cts)]) == [0]
        node.wait("Delivery", "stored", 2)
        assert [event.scored for event in node.of("Event", "scored")] == [1, 3]
    assert sorted(len(values_in(report)) for report in results_in(empty, marked.uid)) == [1, 3]


def test_an_annotation_waits_for_its_images(tmp_path, empty, scorer, marked, to):
    with listening(tmp_path, scorer, to(empty)) as node:
        assert store(node.port, [marked.sr]) == [0]
        (waiting,) = node.wait("Event")
        assert (waiting.status, waiting.codes) == ("waiting", {"unknown_image": 4})
        store(node.port, marked.cts)
        node.wait("Delivery", "stored")
    assert len(values_in(*results_in(empty, marked.uid))) == 4


def test_two_studies_at_once_and_one_is_complete_only_when_it_is_released(tmp_path, empty, scorer, marked, to):
    one, other = marked, other_study(marked, 2)
    with listening(tmp_path, scorer, to(empty)) as node:
        first, second = (associate(node.port, [study.cts[0], study.sr]) for study in (one, other))
        for a, b in zip([*one.cts, one.sr], [*other.cts, other.sr], strict=True):
            assert first.send_c_store(a).Status == second.send_c_store(b).Status == 0
        second.release()
        node.wait("Delivery", "stored")
        assert results_in(empty, other.uid)
        assert not results_in(empty, one.uid)
        assert len(node.of("Event")) == 1
        first.release()
        node.wait("Delivery", "stored", 2)
    assert len(values_in(*results_in(empty, one.uid))) == len(values_in(*results_in(empty, other.uid))) == 4


def test_results_wait_for_a_pacs_that_is_away(tmp_path, scorer, marked, to, short_pauses):
    pacs = Orthanc(tmp_path / "orthanc")
    with listening(tmp_path / "node", scorer, to(pacs)) as node:
        store(node.port, [*marked.cts, marked.sr])
        away = node.wait("Delivery", "away", 2)
        assert [one.waiting for one in away[:2]] == [1, 1]
        assert away[1].again_s == 2 * away[0].again_s
        # It receives and scores all the same.
        other = other_study(marked, 4)
        assert set(store(node.port, [*other.cts, other.sr])) == {0}
        node.wait("Event", "scored", 2)
        with pacs:
            node.wait("Delivery", "stored", 2)
            assert results_in(pacs, marked.uid)
            assert results_in(pacs, other.uid)
    assert not any((tmp_path / "node" / "results").iterdir())


def test_one_object_that_cannot_be_stored_now_keeps_no_other_waiting(tmp_path, empty, scorer, marked, to, short_pauses):
    other, good = other_study(marked, 7), to(empty)
    left = 2

    def send(paths):
        nonlocal left
        if left and pydicom.dcmread(paths[0]).StudyInstanceUID == marked.uid:
            left -= 1
            if not left:
                raise ZeroDivisionError("with a patient's name in it")
            return [SimpleNamespace(outcome="failed", status="0xA700"), *list(good(paths))[1:]]
        return good(paths)

    with listening(tmp_path, scorer, send) as node:
        store(node.port, [*marked.cts, marked.sr])
        node.wait("Delivery", "later")
        store(node.port, [*other.cts, other.sr])
        node.wait("Delivery", "stored", 2)
    assert [(one.codes, one.again_s) for one in node.of("Delivery", "later")] == [
        ({"0xA700": 1}, 0.1),
        ({"fault: ZeroDivisionError": 1}, 0.2),
    ]
    assert results_in(empty, marked.uid)
    assert results_in(empty, other.uid)


def test_what_the_pacs_does_not_want_is_kept(tmp_path, scorer, marked):
    def send(paths):
        return [
            SimpleNamespace(outcome="refused" if path.name == "sr.dcm" else "present", status="0122") for path in paths
        ]

    with listening(tmp_path, scorer, send) as node:
        store(node.port, [*marked.cts, marked.sr])
        (delivery,) = node.wait("Delivery")
    assert (delivery.status, delivery.stored, delivery.codes) == ("refused", 4, {"0122": 1})
    assert len(list((tmp_path / "failed").rglob("*.dcm"))) == 5
    assert not any((tmp_path / "results").iterdir())


def nothing_sent(paths):
    raise AssertionError("nothing is to be sent")


def test_a_study_of_which_nothing_can_be_scored_is_kept_with_the_reasons(tmp_path, scorer, marked):
    bad = [copy_of(ct) for ct in marked.cts]
    for ct in bad:
        ct.RescaleSlope = 0
    with listening(tmp_path, scorer, nothing_sent) as node:
        store(node.port, [*bad, marked.sr])
        (event,) = node.wait("Event")
    assert (event.status, event.scored, event.refused) == ("refused", 0, 4)
    (table,) = (tmp_path / "failed").rglob("results.csv")
    assert table.read_text().count("bad_rescale") == 4


def test_a_study_without_annotation_goes_when_its_time_is_over(tmp_path, scorer, marked):
    with listening(tmp_path, scorer, nothing_sent, keep_s=0.5) as node:
        store(node.port, marked.cts[:2])
        assert [event.status for event in node.wait("Event", count=2)] == ["waiting", "removed"]
        assert not any((tmp_path / "received").iterdir())
        assert store(node.port, marked.cts[:2]) == [0, 0]
        brought = node.wait("Brought", count=2)[1]
        assert brought.new == 2


def test_what_was_stored_goes_with_its_study(tmp_path, empty, scorer, marked, to):
    with listening(tmp_path, scorer, to(empty), keep_s=1.0) as node:
        store(node.port, [*marked.cts, marked.sr])
        node.wait("Delivery", "stored")
        node.wait("Event", "removed")
        wait_for(lambda: not any((tmp_path / "stored").iterdir()))
    assert results_in(empty, marked.uid)


def test_results_are_stored_of_a_study_that_is_gone(tmp_path, empty, scorer, marked, to, short_pauses):
    good, is_there = to(empty), threading.Event()

    def send(paths):
        if not is_there.is_set():
            raise LymphcadError("made for the test")
        return good(paths)

    with listening(tmp_path, scorer, send, keep_s=0.3) as node:
        store(node.port, [*marked.cts, marked.sr])
        node.wait("Event", "removed")
        assert not node.of("Delivery", "stored")
        is_there.set()
        node.wait("Delivery", "stored")
    assert results_in(empty, marked.uid)
    assert not any((tmp_path / "stored").iterdir())


def test_a_study_grows_old_over_restarts(tmp_path, scorer, marked):
    with listening(tmp_path, scorer, nothing_sent) as node:
        store(node.port, marked.cts[:1])
        node.wait("Event", "waiting")
    for path in tmp_path.glob("received/*/*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
    with listening(tmp_path, scorer, nothing_sent) as node:
        node.wait("Event", "removed")


def test_a_node_that_cannot_go_on_ends(tmp_path, scorer, marked):
    def send(paths):
        shutil.rmtree(tmp_path / "stored")
        return [SimpleNamespace(outcome="stored", status="") for _ in paths]

    with listening(tmp_path, scorer, send) as node:
        store(node.port, [*marked.cts, marked.sr])
        with node.changed:
            assert node.changed.wait_for(lambda: node.fault, 60)
    assert isinstance(node.fault, CommandError)
    assert "cannot be moved on (No such file or directory)" in str(node.fault)


class FailsOnce:
    """A scorer that fails at its first node."""

    def __init__(self, scorer):
        self.scorer, self.failures = scorer, 1
        self.manifest, self.digest, self.about, self.at_once = scorer.manifest, scorer.digest, scorer.about, 1

    def score_window(self, window):
        if self.failures:
            self.failures -= 1
            raise ServerError(Reason.SERVER_AWAY, "made for the test")
        return self.scorer.score_window(window)


def test_a_study_is_scored_again_when_the_scorer_failed(tmp_path, empty, scorer, marked, to, short_pauses):
    with listening(tmp_path, FailsOnce(scorer), to(empty)) as node:
        store(node.port, [*marked.cts, marked.sr])
        node.wait("Delivery", "stored")
        failed, scored = node.of("Event")
    assert (failed.status, failed.codes, scored.status) == ("failed", {"server_away": 1}, "scored")
    assert len(values_in(*results_in(empty, marked.uid))) == 4


def test_more_that_comes_while_a_study_is_scored_is_scored_too(tmp_path, empty, scorer, marked, to):
    by_uid = {ct.SOPInstanceUID: ct for ct in marked.cts}
    nodes = [(name, by_uid[uid], row, col) for name, uid, row, col in marked.nodes]

    class Slow(FailsOnce):
        def score_window(self, window):
            if self.failures:
                self.failures = 0
                assert store(node.port, [annotation(nodes[1:2], marked.cts)]) == [0]
            return self.scorer.score_window(window)

    with listening(tmp_path, Slow(scorer), to(empty)) as node:
        store(node.port, [*marked.cts, annotation(nodes[:1], marked.cts)])
        node.wait("Delivery", "stored")
        assert [event.status for event in node.of("Event")] == ["changed", "scored"]
    assert len(values_in(*results_in(empty, marked.uid))) == 2


def test_after_a_restart_what_is_done_is_not_done_again(tmp_path, empty, scorer, marked, to):
    with listening(tmp_path, scorer, to(empty)) as node:
        store(node.port, [*marked.cts, marked.sr])
        node.wait("Delivery", "stored")
    with listening(tmp_path, scorer, nothing_sent) as node:
        store(node.port, other_study(marked, 5).cts[:1])
        node.wait("Event", "waiting")
        assert len(node.of("Event")) == 1


def test_a_fault_of_ours_in_one_study_keeps_no_other_waiting(tmp_path, empty, scorer, marked, to, monkeypatch):
    other = other_study(marked, 6)
    good = write_study

    def faulty(nodes, *arguments, **options):
        if pydicom.dcmread(nodes[0].path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID == marked.uid:
            raise ZeroDivisionError("with a patient's name in it")
        return good(nodes, *arguments, **options)

    monkeypatch.setattr("lymphcad_client.listen.study.write_study", faulty)
    with listening(tmp_path, scorer, to(empty)) as node:
        store(node.port, [*marked.cts, marked.sr])
        (held,) = node.wait("Event", "held")
        assert held.why == "a fault in the program, ZeroDivisionError"
        store(node.port, [*other.cts, other.sr])
        node.wait("Delivery", "stored")
    assert (tmp_path / "received").exists()


def test_the_log_names_nobody(tmp_path, empty, scorer, marked, to):
    named = [copy_of(ct, PatientName="Doe^Jane", PatientID="P-4711") for ct in marked.cts]
    with listening(tmp_path, scorer, to(empty)) as node:
        store(node.port, [*named, marked.sr])
        node.wait("Delivery")
        said = "\n".join(line_of(event) for event in node.events if not isinstance(event, int))
    assert re.search(r"study [0-9a-f]{8}: scored, .*4 scored, 0 refused", said), said
    for secret in ("Doe", "4711", marked.uid, marked.sr.SOPInstanceUID, "SENDER"):
        assert secret not in said
    names = "\n".join(path.name for path in tmp_path.rglob("*"))
    assert not re.search(r"Doe|4711|1\.2\.|2\.25", names)
