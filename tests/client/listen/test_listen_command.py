"""The command: killed with -9 it loses nothing that it acknowledged, and stores no result twice; what it says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from listening import DEMO, associate, file_bytes, marked_study, store
from lymphcad_client.pacs.receiving import OUT_OF_RESOURCES
from lymphcad_client.watch.files import LOCK
from orthanc import Orthanc

from lymphcad.cli import main

GOOD = ["--to", "dicom://PACS@127.0.0.1:1", "--edge", str(DEMO), "--runner", "onnxruntime", "--port", "0"]
RUN = Path(__file__).with_name("listen_kills.py")


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
def running(folder, pacs, event="", pattern="", number=0):
    """Run the command; what it says on either stream can be read."""
    process = subprocess.Popen(
        [
            *(sys.executable, str(RUN), event, pattern, str(number)),
            *("listen", str(folder), "--to", pacs.address, "--edge", str(DEMO), "--runner", "onnxruntime"),
            *("--port", "0", "--aet", "NODE", "--allow-aet", "SENDER", "--settle", "0.1", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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


def port_of(node):
    """Return the port, once it listens."""
    said = []
    for line in node.stdout:
        said.append(line)
        if found := re.search(r"Listening as NODE on port ([0-9]+)", line):
            return int(found[1])
    raise AssertionError("".join(said))


def delivery(node):
    """Return what it says of the next results that it delivers."""
    for line in node.stdout:
        if line.startswith("{") and (event := json.loads(line))["event"] == "delivery":
            return event
    return None


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
        send_all(port_of(node), [*marked.cts, marked.sr])
        assert delivery(node)["status"] == "stored"
    found = stored_in(pacs, marked.uid)
    assert len(found) == 5
    return found


@pytest.mark.parametrize(
    ("event", "pattern", "number"),
    [
        ("os.rename", r"received/\w+/\.part-", 5),
        ("open", r"results/\.\w+-part/study\.json", 1),
        ("os.rename", r"results/\w+\|.*stored/\w+$", 1),
    ],
    ids=["received", "scored", "sent"],
)
def test_killed(tmp_path, pacs, marked, undisturbed, event, pattern, number):
    for study in pacs.get("/studies"):
        pacs.request("DELETE", f"/studies/{study}")
    everything = [*marked.cts, marked.sr]
    with running(tmp_path, pacs, event, pattern, number) as node:
        taken = send_all(port_of(node), everything)
        assert node.wait(60) == -9
    received = [pydicom.dcmread(path) for path in (tmp_path / "received").rglob("*.dcm")]
    for one in taken:  # what was acknowledged is there
        assert pydicom.dcmread(io.BytesIO(file_bytes(one))) in received
    with running(tmp_path, pacs) as node:
        port = port_of(node)
        if len(taken) < len(everything):  # as a sender does that got no answer
            assert len(send_all(port, everything)) == len(everything)
        event = delivery(node)
        assert (event["status"], event["stored"], event["waiting"]) == ("stored", 5, 0)
        node.terminate()
        assert delivery(node) is None
        assert node.wait(60) == 130
    assert stored_in(pacs, marked.uid) == undisturbed
    hidden = [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert [path.name for path in hidden] == [LOCK]


def test_what_it_says_and_how_it_ends(tmp_path, pacs, marked):
    for study in pacs.get("/studies"):
        pacs.request("DELETE", f"/studies/{study}")
    with running(tmp_path, pacs) as node:
        port = port_of(node)
        # The disk is full, and then it is not.
        unlimited = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
        assert store(port, marked.cts[:1]) == [OUT_OF_RESOURCES]
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, unlimited)
        assert set(store(port, [*marked.cts, marked.sr])) == {0}
        said = []
        for line in node.stdout:
            said.append(line)
            if "results stored" in line:
                break
        with running(tmp_path, pacs) as other:
            assert "another" in other.stdout.read()
            assert other.wait(60) == 2
        node.send_signal(signal.SIGINT)
        said += node.stdout.readlines()
        assert node.wait(60) == 130
    text = "".join(said)
    time = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
    assert re.search(f"^{time} received 0 new, 0 known; refused 1 disk$", text, re.MULTILINE), text
    assert re.search(f"^{time} received {len(marked.cts) + 1} new, 0 known$", text, re.MULTILINE), text
    assert re.search(f"^{time} study [0-9a-f]{{8}}: scored, .*4 scored, 0 refused; [0-9.]+ s$", text, re.MULTILINE), (
        text
    )
    assert re.search(f"^{time} study [0-9a-f]{{8}}: 5 results stored$", text, re.MULTILINE), text
    assert "lymphcad: stopped; studies whose results are still to be stored: 0" in text
    assert marked.uid not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "PACS"], "no address of a PACS"),
        (["--tls-cert", "a.pem"], "go together"),
        (["--tls-ca", "a.pem"], "go together"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "cannot be used"),
        (["--to-tls-cert", "a.pem"], "go together"),
        (["--dicom", "sr,pdf"], "--dicom 'sr,pdf' is not known"),
        (["--port", "65536"], "cannot be listened on"),
        (["--bind", "192.0.2.1"], "cannot be listened on"),
        (["--aet", "TOO LONG FOR A TITLE"], "AE title"),
        (["--allow-aet", "\\"], "AE title"),
        (["--server", "grpc://127.0.0.1:1"], "--edge"),
    ],
)
def test_a_wrong_command(tmp_path, capsys, options, words):
    with pytest.raises(SystemExit) as ended:
        main(["listen", str(tmp_path / "node"), *GOOD, *options])
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert words in said.err
    assert said.err.count("lymphcad: ") == 1
    assert not said.out


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "node").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["listen", str(tmp_path / "node"), *GOOD])
    assert ended.value.code == 2
    assert "cannot be made" in capsys.readouterr().err
