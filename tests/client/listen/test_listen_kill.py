"""A node that is killed with -9 loses nothing that it acknowledged, and stores no result twice."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from listening import associate, file_bytes, marked_study
from orthanc import Orthanc

RUN = Path(__file__).with_name("run_node.py")


@pytest.fixture(scope="module")
def marked():
    whole = marked_study()
    marked = {uid for _, uid, _, _ in whole.nodes}
    return replace(whole, cts=[ct for ct in whole.cts if ct.SOPInstanceUID in marked])


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with Orthanc(tmp_path_factory.mktemp("pacs") / "orthanc") as started:
        yield started


@contextlib.contextmanager
def running(folder, pacs, *kill):
    process = subprocess.Popen(
        [sys.executable, str(RUN), str(folder), str(pacs.dicom), *kill], stdout=subprocess.PIPE, text=True
    )
    deadline = threading.Timer(60, process.kill)  # else a node that does not go on is waited for
    deadline.start()
    try:
        yield process
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def send_all(port, datasets):
    """Send what the node takes before it dies; return which it acknowledged."""
    sender = associate(port, datasets)
    taken = []
    for one in datasets:
        if sender.send_c_store(one).get("Status") != 0:
            sender.abort()
            return taken
        taken.append(one)
    with contextlib.suppress(RuntimeError):  # it may die now
        sender.release()
    return taken


def stored_in(pacs, of):
    """Return what the PACS has: SOP Instance UID and contents but for when it came there."""
    found = {}
    for one, (study, _, uid) in pacs.instances().items():
        assert study == of
        assert uid not in found
        found[uid] = pacs.file(one)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, pacs, marked):
    """Return what a node that nobody kills stores."""
    with running(tmp_path_factory.mktemp("node"), pacs) as node:
        send_all(int(node.stdout.readline()), [*marked.cts, marked.sr])
        assert next(line for line in node.stdout if line.startswith("Delivery")) == "Delivery stored\n"
    found = stored_in(pacs, marked.uid)
    assert len(found) == 5
    return found


@pytest.mark.parametrize(
    ("event", "pattern", "number"),
    [
        ("os.rename", r"received/\w+/\.part-", 5),
        ("open", r"results/\.\w+-part/study\.json", 1),
        ("open", r"results/\w+/dicom/\w+/sr\.dcm", 1),
        ("os.rename", r"results/\w+\|.*stored/\w+$", 1),
    ],
    ids=["received", "scored", "sending", "sent"],
)
def test_killed(tmp_path, pacs, marked, undisturbed, event, pattern, number):
    for study in pacs.get("/studies"):
        pacs.request("DELETE", f"/studies/{study}")
    everything = [*marked.cts, marked.sr]
    with running(tmp_path, pacs, event, pattern, str(number)) as node:
        taken = send_all(int(node.stdout.readline()), everything)
        assert node.wait(60) == -9
    received = [pydicom.dcmread(path) for path in (tmp_path / "received").rglob("*.dcm")]
    for one in taken:  # what was acknowledged is there
        assert pydicom.dcmread(io.BytesIO(file_bytes(one))) in received
    with running(tmp_path, pacs) as node:
        port = int(node.stdout.readline())
        if len(taken) < len(everything):  # as a sender does that got no answer
            assert len(send_all(port, everything)) == len(everything)
        assert next((line for line in node.stdout if line.startswith("Delivery")), None) == "Delivery stored\n"
        node.terminate()
        assert node.wait(60) == 0
        assert "Delivery" not in node.stdout.read()
    assert stored_in(pacs, marked.uid) == undisturbed
    hidden = [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert not hidden
