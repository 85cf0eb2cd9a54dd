"""What answers for a page that outlives the servers it asks: real ones, killed, hung, and put in each other's place."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from lymphcad_client.observing import ASKING
from lymphcad_client.triton import TritonScorer
from lymphcad_dashboard import engine as engine_module
from lymphcad_dashboard.engine import Engine, Where, open_engines, places
from lymphcad_dashboard.latency import Latency
from lymphcad_dashboard.settings import Settings
from pages import wait_for
from pydicom.data import get_testdata_file

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.dicom import read_slice
from lymphcad.errors import BundleError, CommandError, Reason, Refusal, ServerError

AT = (60.0, 70.0)
CT = read_slice(Path(get_testdata_file("CT_small.dcm", download=False)))


@pytest.fixture(scope="module")
def served(tmp_path_factory, probe_bundle):
    """Return a function that starts a server on the probe's or the demo's bundle at one address."""
    pytest.importorskip("pytriton")
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    bundles = {"probe": probe_bundle, "demo": Bundle(DEMO_BUNDLE)}
    folder, ports = tmp_path_factory.mktemp("models"), free_ports()
    for name, bundle in bundles.items():
        write_repository(bundle, folder / name, Target.EMBEDDED)
    running = []

    def start(name):
        while running:
            running.pop().stop()
        running.append(Server(folder / name, ports))
        return running[-1]

    start.address, start.bundles = f"grpc://127.0.0.1:{ports.grpc}", bundles
    yield start
    while running:
        running.pop().stop()


@pytest.fixture
def always_asked(monkeypatch):
    monkeypatch.setattr(engine_module, "_ASK_AGAIN_S", 0.0)


@pytest.fixture
def engine(served):
    one = Engine(Where(server=served.address), timeout_s=5)
    yield one
    one.close()
    all_closed()


def all_closed():
    wait_for(lambda: not any(thread.name == "lymphcad-close" for thread in threading.enumerate()))


def kill(server):
    os.killpg(server.pid, signal.SIGKILL)
    wait_for(lambda: server.poll() is not None)


def is_of(answer, bundle):
    found = answer.finding
    assert found.heatmap.shape == (bundle.manifest.preprocess.size,) * 2
    return (found.bundle, found.threshold, answer.manifest) == (
        bundle.label,
        bundle.manifest.threshold,
        bundle.manifest,
    )


@pytest.mark.server
def test_a_server_that_comes_goes_and_comes_back_with_another_bundle(served, engine, always_asked):
    assert (engine.place, engine.remote) == (served.address, True)
    status = engine.status()
    assert not status.ready
    assert status.sentence.startswith("server_away: the server at 127.0.0.1")
    assert (status.manifest, status.label, status.digest, status.about) == (None, "", "", "")
    with pytest.raises(ServerError) as away:
        engine.score(CT, *AT)
    assert away.value.reason is Reason.SERVER_AWAY

    probe, demo = served.bundles["probe"], served.bundles["demo"]
    server = served("probe")
    status = engine.status()
    assert (status.ready, status.manifest, status.label, status.digest) == (
        True,
        probe.manifest,
        probe.label,
        probe.digest,
    )
    assert "by the Triton server at" in status.about
    answer = engine.score(CT, *AT)
    assert is_of(answer, probe)
    assert answer.seconds > 0
    with pytest.raises(Refusal):
        engine.score(CT, 1e6, 1)

    kill(server)
    assert not engine.status().ready
    served("demo")
    assert is_of(engine.score(CT, *AT), demo)  # the first that asks, with nobody having looked
    assert engine.status().digest == demo.digest

    served("probe")  # never seen to be away
    assert is_of(engine.score(CT, *AT), probe)
    served("demo")
    assert engine.status().label == demo.label


@pytest.mark.server
def test_a_server_is_asked_once_a_second_at_most(served, engine, monkeypatch):
    asked = []
    ask = Engine._ask
    monkeypatch.setattr(Engine, "_ask", lambda self: asked.append(self) or ask(self))
    server = served("probe")
    monkeypatch.setattr(engine_module, "_ASK_AGAIN_S", 1e9)
    assert engine.status().ready
    kill(server)
    assert [engine.status().ready for _ in range(9)] == [True] * 9
    assert len(asked) == 1
    monkeypatch.setattr(engine_module, "_ASK_AGAIN_S", 0.0)
    assert not engine.status().ready


@pytest.mark.server
def test_a_bundle_that_changes_under_an_answer(served, engine, monkeypatch):
    served("probe")
    score = TritonScorer.score_window

    def swap_meanwhile(self, window):
        answer = score(self, window)
        monkeypatch.setattr(TritonScorer, "score_window", score)
        served("demo")
        return answer

    monkeypatch.setattr(TritonScorer, "score_window", swap_meanwhile)
    with pytest.raises(ServerError) as found:
        engine.score(CT, *AT)
    assert found.value.reason in (Reason.OTHER_BUNDLE, Reason.SERVER_AWAY)
    assert is_of(engine.score(CT, *AT), served.bundles["demo"])


@pytest.mark.server
def test_a_server_that_hangs(served, always_asked):
    server = served("probe")
    engine = Engine(Where(server=served.address), timeout_s=1)
    assert engine.status().ready
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: not engine.status().ready)
        assert engine.status().sentence.startswith("server_timeout")
        with pytest.raises(ServerError) as found:
            engine.score(CT, *AT)
        assert found.value.reason is Reason.SERVER_TIMEOUT
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    assert wait_for(engine.status).ready
    assert is_of(engine.score(CT, *AT), served.bundles["probe"])
    engine.close()


@pytest.mark.server
def test_who_is_at_work_keeps_the_scorer(served, engine):
    served("probe")
    with engine._current() as scorer:
        engine.close()
        all_closed()
        scorer.check()
    all_closed()
    with pytest.raises(ServerError, match="server_away"):
        scorer.check()


@pytest.mark.server
def test_many_sessions_while_the_server_is_replaced(served, engine, always_asked):
    served("probe")
    labels = {bundle.label: bundle for bundle in served.bundles.values()}
    answers, errors, stop = [], [], threading.Event()

    def session():
        while not stop.is_set():
            engine.status()
            try:
                answers.append(engine.score(CT, *AT))
            except ServerError as error:
                errors.append(error)

    threads = [threading.Thread(target=session) for _ in range(6)]
    for thread in threads:
        thread.start()
    demo = served.bundles["demo"]
    try:
        wait_for(lambda: len(answers) > 20)
        kill(served("probe"))
        served("demo")
        wait_for(lambda: sum(answer.finding.bundle == demo.label for answer in list(answers)) > 20)
    finally:  # else they go on asking while other tests run
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors
    assert all(is_of(answer, labels[answer.finding.bundle]) for answer in answers)
    assert {answer.finding.bundle for answer in answers} == set(labels)
    assert is_of(engine.score(CT, *AT), demo)
    assert engine._held.users == 0


def test_this_machine():
    engine = Engine(Where(edge=DEMO_BUNDLE, runner="onnxruntime"))
    bundle, status = Bundle(DEMO_BUNDLE), engine.status()
    assert (engine.place, engine.remote) == ("this machine", False)
    assert (status.ready, status.label, status.digest) == (True, bundle.label, bundle.digest)
    assert status.sentence == status.about
    assert "by ONNX Runtime" in status.about
    assert is_of(engine.score(CT, *AT), bundle)
    with pytest.raises(Refusal):
        engine.score(CT, -9, 1)


def test_what_cannot_be_opened(tmp_path):
    for where, error, words in (
        (Where(server="127.0.0.1:8001"), CommandError, "no server address"),
        (Where(server="grpc://127.0.0.1:1", edge=DEMO_BUNDLE), CommandError, "leave --server"),
        (Where(server="grpc://127.0.0.1:1", precision="int8"), CommandError, "--precision goes with --edge"),
        (Where(edge=tmp_path), BundleError, "there is no bundle.json"),
        (Where(edge=DEMO_BUNDLE, precision="fp32"), BundleError, "fp32 was asked for"),
    ):
        with pytest.raises(error, match=words):
            Engine(where)


def test_engines_are_opened_once():
    settings = Settings(runner="onnxruntime", compare="grpc://127.0.0.1:1")
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_engines(settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engines) for engines in found}) == 1
    here, there = found[0]
    assert (here.place, here.remote, there.place, there.remote) == ("this machine", False, "grpc://127.0.0.1:1", True)
    assert here.status().ready
    assert not there.status().ready


def test_what_goes_with_which_place():
    a, key = Path("a"), Path("pub")
    assert places(Settings()) == (Where(edge=DEMO_BUNDLE),)
    of_bundle = Settings(edge=a, runner="openvino", precision="int8", engines=Path("e"), key=key, compare="b")
    assert places(of_bundle) == (
        Where(edge=a, runner="openvino", precision="int8", engines=Path("e"), key=key),
        Where(edge=Path("b"), runner="openvino", key=key),
    )
    rtx = Settings(edge=a, runner="tensorrt-rtx", compare="b")
    assert [where.runner for where in places(rtx)] == ["tensorrt-rtx", "auto"]
    assert places(Settings(server="grpc://x:1", runner="openvino", key=key, compare="b")) == (
        Where(server="grpc://x:1"),
        Where(edge=Path("b"), runner="openvino", key=key),
    )
    assert places(Settings(server="grpc://x:1", key=key, compare="grpc://y:2")) == (
        Where(server="grpc://x:1", key=key),  # which is refused: no server's bundle can be checked by it
        Where(server="grpc://y:2"),
    )


def test_settings_travel(monkeypatch):
    monkeypatch.setenv("LYMPHCAD_DASHBOARD", "{}")
    settings = Settings(edge=Path("a b"), runner="openvino", compare="grpc://x:1", sign_in=True, upload_mb=3)
    settings.to_environment()
    found = Settings.from_environment()
    assert found == settings
    assert hash(found) == hash(settings)
    monkeypatch.delenv("LYMPHCAD_DASHBOARD")
    assert Settings.from_environment() == Settings(edge=DEMO_BUNDLE)
    for wrong in ("", "[]", "{", '{"edge": 1}', '{"upload_mb": 0}', '{"other": 1}'):
        monkeypatch.setenv("LYMPHCAD_DASHBOARD", wrong)
        with pytest.raises(CommandError, match="start the page with `lymphcad dashboard`"):
            Settings.from_environment()


def test_latency():
    latency = Latency()
    assert (latency.n, latency.mean_ms, latency.p95_ms) == (0, None, None)
    for ms in range(1, 102):
        latency.add(ms / 1e3)
    assert latency.n == 101
    assert latency.mean_ms == pytest.approx(51)
    assert latency.p95_ms == pytest.approx(96)


class Recorder:
    def __init__(self):
        self.seen = []

    def saw(self, seen):
        self.seen.append(seen)

    def close(self):
        pass


def test_who_looks_on_sees_each_request_and_who_asked():
    recorder = Recorder()
    engine = Engine(Where(edge=DEMO_BUNDLE, runner="onnxruntime"), observers=[recorder])
    token = ASKING.set("reader@hospital.test")
    try:
        answer = engine.score(CT, *AT)
    finally:
        ASKING.reset(token)
    with pytest.raises(Refusal):
        engine.score(CT, 1e6, 1)
    engine.close()
    scored, refused = recorder.seen
    assert scored.finding is answer.finding
    assert (scored.error, scored.who, scored.digest) == (None, "reader@hospital.test", Bundle(DEMO_BUNDLE).digest)
    assert 0 < scored.seconds <= answer.seconds
    assert (refused.window, refused.finding, refused.error.reason) == (None, None, Reason.NODE_OUTSIDE_IMAGE)
    assert refused.who not in ("", "reader@hospital.test")


def test_an_answer_that_must_not_be_given_out_is_not():
    class Full(Recorder):
        def saw(self, _seen):
            raise ServerError(Reason.SERVER_ERROR, "the trail is full")

    engine = Engine(Where(edge=DEMO_BUNDLE, runner="onnxruntime"), observers=[Full()])
    with pytest.raises(ServerError, match="the trail is full"):
        engine.score(CT, *AT)
    engine.close()


@pytest.mark.server
def test_a_connection_is_renewed_from_time_to_time(served, engine, monkeypatch):
    served("probe")
    engine.score(CT, *AT)
    first = engine._held.scorer
    engine.score(CT, *AT)
    assert engine._held.scorer is first
    monkeypatch.setattr(engine_module, "_RENEW_S", 0.0)
    assert is_of(engine.score(CT, *AT), served.bundles["probe"])
    assert engine._held.scorer is not first


def test_a_shadow_beside_a_comparison(tmp_path):
    settings = Settings(edge=DEMO_BUNDLE, compare=str(DEMO_BUNDLE), shadow="grpc://x:1", shadow_out=tmp_path / "pairs")
    with pytest.raises(CommandError, match="use one of them"):
        open_engines(settings)
