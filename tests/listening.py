"""A node that listens in a thread of the test, and studies to send to it."""

from __future__ import annotations

import contextlib
import csv
import io
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pydicom
from annotating import copy_of, planar, report, scoord
from lymphcad_client.listen.run import Node
from lymphcad_client.listen.spool import Spool
from lymphcad_client.pacs.address import Speech, parse_peer
from lymphcad_client.pacs.sending import send_files
from pydicom.uid import generate_uid
from pynetdicom import AE

from lymphcad.phantom.sample import STUDY_LABELS, sample_study

DEMO = Path(__file__).parents[1] / "bundles" / "demo"


@dataclass
class Marked:
    """A study with its annotation.

    Attributes
    ----------
    cts
        Its slices, as datasets.
    sr
        A structured report that marks its nodes.
    nodes
        Name, SOP Instance UID, row and column of each.
    """

    cts: list
    sr: object
    nodes: list

    @property
    def uid(self):
        return self.cts[0].StudyInstanceUID


def marked_study():
    """Return the phantom study; the demo bundle calls its nodes as `STUDY_LABELS` says."""
    files, table = sample_study(lambda _: None)
    cts = [pydicom.dcmread(io.BytesIO(file.data)) for file in files]
    by_name = {file.name: ct for file, ct in zip(files, cts, strict=True)}
    nodes = [
        (row["node"], by_name[row["image"]], float(row["row"]), float(row["col"]))
        for row in csv.DictReader(io.StringIO(table.decode()))
    ]
    return Marked(cts, annotation(nodes, cts), [(name, ct.SOPInstanceUID, row, col) for name, ct, row, col in nodes])


def annotation(nodes, cts):
    """Return a report that marks nodes (name, slice, row, column)."""
    groups = [planar(scoord("POINT", [[col + 0.5, row + 0.5]], ct), name) for name, ct, row, col in nodes]
    return report(groups, cts)


def other_study(marked, number):
    """Return the same study under other UIDs."""
    study = generate_uid(entropy_srcs=[str(number), "study"])
    new = {ct.SOPInstanceUID: generate_uid(entropy_srcs=[str(number), ct.SOPInstanceUID]) for ct in marked.cts}
    cts = [copy_of(ct, StudyInstanceUID=study, SOPInstanceUID=new[ct.SOPInstanceUID]) for ct in marked.cts]
    for ct in cts:
        ct.file_meta.MediaStorageSOPInstanceUID = ct.SOPInstanceUID
    by_uid = {ct.SOPInstanceUID: ct for ct in cts}
    nodes = [(name, by_uid[new[uid]], row, col) for name, uid, row, col in marked.nodes]
    return Marked(cts, annotation(nodes, cts), [(name, new[uid], row, col) for name, uid, row, col in marked.nodes])


def file_bytes(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def associate(port, datasets, aet="SENDER"):
    entity = AE(aet)
    for sop_class, syntax in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
        entity.add_requested_context(sop_class, syntax)
    found = entity.associate("127.0.0.1", port)
    assert found.is_established
    return found


def store(port, datasets):
    """Send objects over one association; return their statuses."""
    sender = associate(port, datasets)
    statuses = [sender.send_c_store(one).get("Status") for one in datasets]
    sender.release()
    return statuses


def send_to(address, timeout_s=30):
    """Return what stores files at a PACS."""
    return partial(send_files, peer=parse_peer(address), speech=Speech(timeout_s=timeout_s, tries=1))


class Listening:
    """What a node in a thread has said and where it listens."""

    def __init__(self):
        self.events, self.port, self.fault = [], None, None
        self.changed = threading.Condition()

    def report(self, event):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def listening(self, port):
        self.report(port)
        self.port = port

    def of(self, kind, status=None):
        """Return the events of a kind (by name), e.g. ``Event`` or ``Delivery``."""
        found = [one for one in list(self.events) if type(one).__name__ == kind]
        return [one for one in found if status is None or one.status == status]

    def wait(self, kind, status=None, count=1, seconds=60):
        """Wait for so many events, and return them."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(kind, status)) >= count or self.fault, seconds), (
                self.events
            )
        assert self.fault is None, self.fault
        return self.of(kind, status)


@contextlib.contextmanager
def listening(folder, scorer, send, *, settle_s=0.2, keep_s=3600.0, **options):
    """Run a node in a thread; stopped at the end."""
    found, stop = Listening(), threading.Event()
    node = Node(
        Spool(folder),
        scorer,
        send,
        found.report,
        port=0,
        ae_title="NODE",
        kinds=["sr", "sc"],
        settle_s=settle_s,
        keep_s=keep_s,
        **options,
    )

    def run():
        try:
            node.run(stop, found.listening)
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            with found.changed:
                found.fault = error
                found.changed.notify_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found.wait("int")
        yield found
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def wait_for(what, seconds=60):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


LABELS = STUDY_LABELS
