"""An inbox that is watched by a scorer whose answer is known, on a clock that a test moves."""

from __future__ import annotations

import csv
import json
import shutil
import threading

import numpy as np
from lymphcad_client.results import COLUMNS
from lymphcad_client.watch.inbox import Inbox
from lymphcad_client.watch.outbox import Outbox
from lymphcad_client.watch.watcher import Watcher
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lymphcad.bundle import Manifest, Preprocess
from lymphcad.errors import Reason, Refusal, ServerError
from lymphcad.finding import Finding
from lymphcad.slice import PADDING_HU

CT = get_testdata_file("CT_small.dcm", download=False)
UID = str(dcmread(CT).SOPInstanceUID)


def place_of(window):
    """Return row and column of a node near the upper left corner: the window is padded where it reaches beyond."""
    inside = window.image != PADDING_HU
    before = [int(np.argmax(inside.any(axis=axis))) for axis in (1, 0)]
    return tuple(side // 2 - count for side, count in zip(window.image.shape, before, strict=True))


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

    def score_window(self, window):
        row, col = place_of(window)
        with self.lock:
            self.nodes.append((row, col))
            self.meanwhile()
        if row == 7:
            raise Refusal(Reason.NODE_OUTSIDE_IMAGE, "made for the test")
        if row == 8:
            raise ServerError(Reason.RUNNER_ERROR, "made for the test")
        return Finding(row / 1000, "benign", 0.5, np.zeros((32, 32), np.uint8), "made@0")


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


def use(clock, monkeypatch):
    monkeypatch.setattr("lymphcad_client.watch.watcher.time", clock)
    return clock
