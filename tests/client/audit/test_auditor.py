"""A line for each request, nothing in it that names anybody, and no answer without its line."""

from __future__ import annotations

import hashlib
import hmac
import json
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from lymphcad_client.audit import open_audit
from lymphcad_client.audit.trail import key_of
from lymphcad_client.audit.verify import verify
from lymphcad_client.observing import Observed
from lymphcad_client.reading import digest_of
from watching import Answers

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import CommandError, Reason, Refusal, ServerError


def values(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trail.jsonl"


def test_what_a_line_says(path, seen_of):
    audit = open_audit(path)
    seen = seen_of()
    audit.saw(seen)
    audit.close()
    (value,) = values(path)
    key = bytes.fromhex(key_of(path).read_text())
    assert value.pop("time").endswith("Z")
    assert len(value.pop("mac")) == 64
    assert value == {
        "seq": 1,
        "status": "scored",
        "reason": None,
        "who": hmac.new(key, b"who:A. Reader", hashlib.sha256).hexdigest(),
        "input_sha256": digest_of(seen.window),
        "bundle": "made@000000000000",
        "bundle_sha256": "0" * 64,
        "threshold": 0.5,
        "probability": 0.75,
        "call": "metastatic",
        "heatmap_sha256": hashlib.sha256(bytes([7]) * 32 * 32).hexdigest(),
        "latency_ms": 12.346,
        "notice": RESEARCH_USE_ONLY,
        "previous": "0" * 64,
    }


def test_refused_and_failed_requests_have_lines_without_their_sentences(path, seen_of):
    audit = open_audit(path)
    audit.saw(seen_of(error=Refusal(Reason.NOT_CT, "/home/doe^jane/1.2.3.dcm is MR"), window=False, who=""))
    audit.saw(seen_of(error=ServerError(Reason.SERVER_AWAY, "the server at doe.example does not answer")))
    audit.close()
    refused, failed = values(path)
    assert (refused["status"], refused["reason"], refused["who"]) == ("refused", "not_ct", None)
    assert refused["input_sha256"] is None
    assert (failed["status"], failed["reason"], failed["probability"]) == ("failed", "server_away", None)
    assert failed["input_sha256"]
    assert b"doe" not in path.read_bytes()
    assert verify(path).holds


def test_nobody_is_named(path, seen_of):
    audit = open_audit(path)
    audit.saw(seen_of(who="Dr. Ümit Şen"))
    audit.close()
    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not any(word.encode() in content for word in ("Ümit", "Şen", "Dr."))


def test_requests_that_end_at_once_have_one_line_each(path, seen_of):
    audit = open_audit(path)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: audit.saw(seen_of(n / 1000)), range(400)))
    audit.close()
    assert sorted(value["probability"] for value in values(path)) == [n / 1000 for n in range(400)]
    assert verify(path).holds


class _Scorer(Answers):
    closed = False

    def wait_no_longer(self):
        pass

    def close(self):
        self.closed = True


def test_no_answer_leaves_without_its_line(path, seen_of):
    """The disk is full; whoever asks then gets an error and no answer, and the trail has what was answered before."""
    scorer = Observed(_Scorer(), [open_audit(path)])
    window = seen_of().window
    scorer.score_window(window)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    raised = []

    def ask(_):
        with pytest.raises(ServerError, match="no answer is given that is not in the audit trail") as failed:
            scorer.score_window(window)
        raised.append(failed.value.reason)

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(40)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised == [Reason.AUDIT_FAILED] * 40
    scorer.score_window(window)
    scorer.close()
    assert [value["status"] for value in values(path)] == ["scored", "scored"]
    assert verify(path).problems == verify(path).notes == []


def test_a_line_that_another_took_along_and_lost_is_missed(path, seen_of, monkeypatch):
    """A request's line can be taken by a write that was begun for another, which then fails: both must know."""
    audit = open_audit(path)
    began, go_on = threading.Event(), threading.Event()
    append = audit._trail.append

    def fails_once(records):
        monkeypatch.setattr(audit._trail, "append", append)
        began.set()
        assert go_on.wait(30)
        raise CommandError("made for the test")

    monkeypatch.setattr(audit._trail, "append", fails_once)
    wait = audit._written.wait
    first = threading.Event()

    def wait_late():
        if not first.is_set():  # the first to come waits until the other's line is there, too
            first.set()
            while len(audit._waiting) < 2:
                threading.Event().wait(0.001)
            wait()
        else:  # the second only when its line is on its way
            assert began.wait(30)
            go_on.set()
            wait()

    monkeypatch.setattr(audit._written, "wait", wait_late)
    failed = []

    def ask(_):
        with pytest.raises(ServerError, match="made for the test") as caught:
            audit.saw(seen_of())
        failed.append(caught.value.reason)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, range(2)))
    assert failed == [Reason.AUDIT_FAILED] * 2
    assert not path.exists()
