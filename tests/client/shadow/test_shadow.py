"""A second bundle beside the first: right pairs, and no answer that waits for it or is changed by it."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_client.observing import Observed, Seen
from lymphcad_client.opening import open_scorer
from lymphcad_client.reading import digest_of
from lymphcad_client.shadow import open_shadow
from lymphcad_client.shadow.observer import Shadow
from lymphcad_client.shadow.second import SecondServer
from lymphcad_client.tls import Tls
from servers import FAILS, SLOW, odd_repository
from watching import Answers

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import BUNDLE_JSON, Bundle, write_bundle
from lymphcad.errors import CommandError, Reason, Refusal, ServerError
from lymphcad.finding import Finding
from lymphcad.geometry import Window, cut_window

AWAY = "grpc://127.0.0.1:9"
SHADES = (-145, -120, -115, -100, 0, 40, 100, 200)
"""Of which the second and third lie between the two thresholds, HU."""


@pytest.fixture(scope="module")
def lower(probe_bundle, tmp_path_factory):
    """Return the probe bundle with a lower threshold."""
    folder = tmp_path_factory.mktemp("bundles") / "lower"
    shutil.copytree(probe_bundle.path, folder)
    manifest = json.loads((folder / BUNDLE_JSON).read_text())
    (folder / BUNDLE_JSON).unlink()
    return write_bundle(folder, {**manifest, "name": "lower", "threshold": 0.52})


@pytest.fixture(scope="module")
def narrow(probe_bundle):
    """Return a bundle that looks at a smaller field of view."""
    bundle = Bundle(DEMO_BUNDLE)
    assert bundle.manifest.preprocess.field_of_view_mm < probe_bundle.manifest.preprocess.field_of_view_mm
    return bundle


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "pairs.jsonl"


def lines(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def pairs(out):
    return [line for line in lines(out) if line["event"] == "pair"]


def window_of(shade):
    return Window(np.full((128, 128), shade, np.int16), (64.0, 63.0), (0.5, 0.5))


def ask(bundle, shadow, windows):
    """Score windows with a bundle in this process while a shadow looks on."""
    with Observed(EdgeScorer(bundle), [shadow]) as scorer:
        return [scorer.score_window(window) for window in windows]


def test_pairs_of_two_bundles(probe_bundle, lower, out, capsys):
    windows = [window_of(shade) for shade in SHADES]
    answers = ask(probe_bundle, open_shadow(str(lower.path), None, out), windows)
    opened, *found, closed = lines(out)
    assert opened["notice"] == "Research use only; not a medical device"
    assert {name: closed[name] for name in ("pairs", "failed", "skipped", "unanswered")} == {
        "pairs": len(SHADES), "failed": 0, "skipped": 0, "unanswered": 0,
    }  # fmt: skip
    assert capsys.readouterr().err == "Shadow: 8 pairs, 0 failed, 0 skipped.\n"
    flips = 0
    for pair, window, answer in zip(found, windows, answers, strict=True):
        assert pair["input_sha256"] == digest_of(window)
        assert (pair["first"]["bundle"], pair["second"]["bundle"]) == (probe_bundle.label, lower.label)
        assert (pair["first"]["threshold"], pair["second"]["threshold"]) == (0.55, 0.52)
        assert pair["first"]["probability"] == pair["second"]["probability"] == answer.probability
        assert pair["heatmap_difference"] == 0
        assert pair["error"] is None
        flips += pair["first"]["call"] != pair["second"]["call"]
        assert (pair["first"]["call"] == "metastatic") == (answer.probability >= 0.55)
        assert (pair["second"]["call"] == "metastatic") == (answer.probability >= 0.52)
    assert flips == 2


@pytest.mark.server
def test_pairs_with_a_server(probe_bundle, serve_probe, lower, out):
    ask(lower, open_shadow(serve_probe("embedded"), Tls(ca=out), out), [window_of(shade) for shade in SHADES])
    found = pairs(out)
    assert len(found) == len(SHADES)
    for pair in found:
        assert (pair["first"]["bundle"], pair["second"]["bundle"]) == (lower.label, probe_bundle.label)
        assert pair["second"]["probability"] == pytest.approx(pair["first"]["probability"], abs=1e-4)


def test_a_second_bundle_that_looks_at_less_is_given_its_own_window(probe_bundle, narrow, slice_of, out):
    rng = np.random.default_rng(0)
    ct = slice_of(rng.normal(60, 150, (256, 256)), (0.3, 0.3))
    nodes = [(128.2, 120.7), (3.0, 250.0)]  # the second near a corner
    field = probe_bundle.manifest.preprocess
    with EdgeScorer(narrow) as alone:
        expected = {alone.score(ct, *node).probability for node in nodes}
    shadow = open_shadow(str(narrow.path), None, out)
    ask(probe_bundle, shadow, [cut_window(ct, *node, field.field_of_view_mm, field.size) for node in nodes])
    assert {pair["second"]["probability"] for pair in pairs(out)} == expected
    assert {pair["heatmap_difference"] for pair in pairs(out)} == {None}


def test_a_second_bundle_that_looks_at_more_than_there_is_is_not_asked(probe_bundle, narrow, slice_of, out):
    ct = slice_of(np.full((256, 256), 60), (0.3, 0.3))
    field = narrow.manifest.preprocess
    window = cut_window(ct, 128, 128, field.field_of_view_mm, field.size)
    ask(narrow, open_shadow(str(probe_bundle.path), None, out), [window])
    (pair,) = pairs(out)
    assert (pair["second"], pair["error"]) == (None, "window_too_small")


def test_a_server_that_is_away_costs_nothing(probe_bundle, out, capsys):
    windows = [window_of(shade) for shade in SHADES]
    with EdgeScorer(probe_bundle) as alone:
        expected = [alone.score_window(window) for window in windows]
    answers = ask(probe_bundle, open_shadow(AWAY, None, out), windows)
    for answer, right in zip(answers, expected, strict=True):
        assert answer.probability == right.probability
        assert np.array_equal(answer.heatmap, right.heatmap)
    assert [(pair["second"], pair["error"]) for pair in pairs(out)] == [(None, "server_away")] * len(SHADES)
    assert capsys.readouterr().err == "Shadow: 0 pairs, 8 failed, 0 skipped.\n"


@pytest.mark.server
def test_a_server_that_comes_later_is_found_and_one_that_fails_is_said(probe_bundle, tmp_path, out):
    from lymphcad_serve.server import Server, free_ports

    ports = free_ports()
    second = SecondServer(f"grpc://127.0.0.1:{ports.grpc}", None)
    preprocess = probe_bundle.manifest.preprocess
    with pytest.raises(ServerError, match="server_away"):
        second.ask(window_of(0), preprocess)
    with Server(odd_repository(tmp_path / "models", probe_bundle, FAILS), ports) as server:
        assert server.address == f"grpc://127.0.0.1:{ports.grpc}"
        second._tried = 0.0  # a second is over
        with pytest.raises(ServerError, match="server_error"):
            second.ask(window_of(0), preprocess)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ServerError, match="server_away"):  # it is gone again
        pool.submit(second.ask, window_of(0), preprocess).result(60)
    second.close()
    with pytest.raises(ServerError):
        second.ask(window_of(0), preprocess)


@pytest.mark.server
def test_a_slow_server_is_skipped_and_not_waited_for(probe_bundle, tmp_path, out, capsys):
    from lymphcad_serve.server import Server, free_ports

    with Server(odd_repository(tmp_path / "models", probe_bundle, SLOW), free_ports()) as server:
        shadow = Shadow(SecondServer(server.address, None), out, most_waiting=2, finish_s=1.0)
        answers = ask(probe_bundle, shadow, [window_of(shade) for shade in range(60)])
    assert len(answers) == 60
    closed = lines(out)[-1]
    assert closed["event"] == "closed"
    assert closed["skipped"] > 40
    assert closed["pairs"] + closed["failed"] + closed["skipped"] == 60
    assert closed["pairs"] == len(pairs(out))
    assert f"{closed['skipped']} skipped" in capsys.readouterr().err


class _Held:
    """A second one that answers when the test lets it."""

    at_once = 1

    def __init__(self):
        self.go_on, self.closed = threading.Event(), False

    def ask(self, _, preprocess):
        assert self.go_on.wait(30)
        return Finding(0.25, "benign", 0.5, np.zeros((32, 32), np.uint8), "second@0"), preprocess

    def close(self):
        self.closed = True


def seen(shade=0, error=None):
    found = Finding(0.75, "metastatic", 0.5, np.full((32, 32), 9, np.uint8), "made@0")
    manifest, digest = Answers.manifest, Answers.digest
    return Seen(
        None if error else window_of(shade), None if error else found, error, 0.5, manifest, digest, "A. Reader"
    )


def test_what_does_not_fit_is_counted_and_nobody_waits(out):
    second = _Held()
    shadow = Shadow(second, out, most_waiting=5)
    for shade in range(50):  # returns although nothing is answered
        shadow.saw(seen(shade))
    second.go_on.set()
    shadow.close()
    shadow.close()
    assert second.closed
    closed = lines(out)[-1]
    assert 5 <= closed["pairs"] <= 6  # and the one that had left the queue
    assert closed["skipped"] == 50 - closed["pairs"]
    assert {pair["heatmap_difference"] for pair in pairs(out)} == {9.0}
    assert {pair["first"]["ms"] for pair in pairs(out)} == {500.0}


def test_close_does_not_wait_for_ever(out):
    second = _Held()
    shadow = Shadow(second, out, finish_s=0.05)
    for shade in range(3):
        shadow.saw(seen(shade))
    shadow.close()
    second.go_on.set()
    for thread in shadow._threads:
        thread.join(30)
    assert [line["event"] for line in lines(out)] == ["opened", "closed"]  # the late answer is not behind it
    assert lines(out)[-1]["skipped"] == 3


def test_requests_without_an_answer_are_counted(out):
    second = _Held()
    shadow = Shadow(second, out)
    shadow.saw(seen(error=Refusal(Reason.NOT_CT, "made for the test")))
    shadow.saw(seen(error=ServerError(Reason.SERVER_AWAY, "made for the test")))
    shadow.close()
    closed = lines(out)[-1]
    assert (closed["unanswered"], closed["pairs"], closed["skipped"]) == (2, 0, 0)


def test_nobody_is_named(out):
    second = _Held()
    second.go_on.set()
    shadow = Shadow(second, out)
    shadow.saw(seen())
    shadow.close()
    assert "Reader" not in out.read_text()


def test_a_disk_that_is_full_disturbs_nobody(out, capsys):
    second = _Held()
    shadow = Shadow(second, out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (out.stat().st_size + 50, limits[1]))
    try:
        for shade in range(3):
            shadow.saw(seen(shade))
        second.go_on.set()
        shadow.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err == (
        "Shadow: 0 pairs, 0 failed, 3 skipped, and the file cannot be written to (File too large).\n"
    )
    shadow = Shadow(second, out)  # the next run's lines are whole
    shadow.saw(seen())
    shadow.close()
    assert [json.loads(line)["event"] for line in out.read_text().splitlines()[-3:]] == ["opened", "pair", "closed"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8001", "is no server address"),
        ("grpc://127.0.0.1", "is no server address"),
        ("no-such-bundle", "there is no bundle.json"),
    ],
)
def test_a_wrong_address_is_said_at_the_start(out, address, words):
    with pytest.raises(CommandError, match=words):
        open_shadow(address, None, out)
    assert not out.exists()


def test_a_certificate_that_cannot_be_read_is_said_at_the_start(out, tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        open_shadow("grpcs://127.0.0.1:9", Tls(ca=tmp_path / "none"), out)


def test_a_file_that_cannot_be_written_to_is_said_at_the_start(tmp_path):
    with pytest.raises(CommandError, match="name another --shadow-out"):
        open_shadow(AWAY, None, tmp_path)


def test_the_scorer_that_is_opened_by_a_command(probe_bundle, lower, out):
    """`Observed` takes what `open_scorer` returns, and closes both."""
    scorer = Observed(open_scorer(edge=probe_bundle.path), [open_shadow(str(lower.path), None, out)])
    scorer.score_window(window_of(0))
    scorer.close()
    assert Bundle(lower.path).label == pairs(out)[0]["second"]["bundle"]
