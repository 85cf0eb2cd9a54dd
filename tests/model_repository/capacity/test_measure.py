"""A fit finds what made its measurements; and what a real server says of its batches."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.capacity.measure import Level, closed_loop, fit, levels_for, sample_window
from lymphcad_serve.capacity.service import Service
from lymphcad_serve.capacity.simulation import simulate
from lymphcad_serve.capacity.statistics import Batching, Counts, Statistics
from tritonclient.grpc import service_pb2 as messages

from lymphcad.errors import CommandError, Reason, ServerError

ROOT = Path(__file__).parents[3]
EMBEDDED = Batching(2, (2,), 16, 0.0)


def counts(nodes, batches, sizes):
    return Counts(nodes, batches, 0.0, sizes)


def levels(service):
    """Return what closed loops see of a service with two instances: one caller, two that are busy throughout, full."""
    one, two = service.batch_s(1, 1), service.batch_s(1, 2)
    size = service.largest
    full, batches = service.batch_s(size, service.instances), 100 * service.instances
    return [
        Level(
            1, 100 * one, one + service.overhead_s, service.variation * one, counts(100, 100, ((1, 100, 100 * one),))
        ),
        Level(2, 100 * two, two, 0.0, counts(200, 200, ((1, 200, 200 * two),))),
        Level(8, 100 * full, 4 * full, 0.0, counts(batches * size, batches, ((size, batches, batches * full),))),
    ]


def test_a_fit_finds_what_made_the_measurements():
    made = Service(0.004, 0.003, 2, (2,), 16, 0.0, 0.2, 0.15, 0.0012)
    found = fit(levels(made), EMBEDDED)
    for name, value in vars(made).items():
        assert getattr(found, name) == pytest.approx(value), name


@pytest.mark.parametrize("one_s", [0.002, 0.006, 0.02, 0.1])
@pytest.mark.parametrize(
    "batching", [EMBEDDED, Batching(1, (2,), 2, 0.0), Batching(2, (), 1, 0.0), Batching(1, (), 1, 0.0)]
)
def test_the_full_rate_is_what_was_measured_whatever_the_rest(batching, one_s):
    """Figures that contradict each other by noise: a batch of one takes far less, or more, than its share of two."""
    size = batching.preferred[-1] if batching.preferred else 1
    made = levels(Service(0.004, 0.003, batching.instances, batching.preferred, batching.most))
    made[0] = Level(1, 1.0, one_s, 0.0, counts(100, 100, ((1, 100, 100 * one_s),)))
    found = fit(made, batching)
    assert found.rate == pytest.approx(batching.instances * size / (0.004 + 0.003 * size))
    assert min(found.first_s, found.each_s, found.slowdown) >= 0


def test_levels():
    assert levels_for(EMBEDDED) == (1, 2, 8)
    assert levels_for(Batching(1, (8, 64), 64, 0.002)) == (1, 128)
    assert levels_for(Batching(1, (), 1, 0.0)) == (1, 2)
    assert levels_for(Batching(4, (), 128, 0.0)) == (1, 4, 256)


def test_counts_add_and_subtract():
    first, later = counts(3, 2, ((1, 1, 0.5), (2, 1, 1.0))), counts(10, 6, ((1, 2, 1.0), (2, 4, 4.0)))
    assert later - first == counts(7, 4, ((1, 1, 0.5), (2, 3, 3.0)))
    assert (later - first) + first == later
    assert (later - first).batch_s == pytest.approx(3.5 / 4)
    assert (later - later).by_size == ()


@pytest.mark.server
def test_a_real_server(probe_server, serve_probe, probe_bundle):
    with TritonScorer(probe_server) as scorer, Statistics(probe_server) as statistics:
        # With three steps the network is a model of its own, with its own batches.
        preferred = 2 if probe_server == serve_probe("embedded") else 16
        assert statistics.batching == Batching(2, (preferred,), 16, 0.0)
        window = sample_window(probe_bundle.manifest.preprocess)
        found = [closed_loop(scorer, statistics, window, callers, 0.3) for callers in (1, 2, 8)]
        service = fit(found, statistics.batching)
        assert 0 < service.batch_s(1, 1) < found[0].answered_s
        assert found[0].counts.by_size[0][:2] == (1, found[0].counts.nodes)
        assert found[2].counts.batches < found[2].counts.nodes  # eight callers are batched
        assert service.instances == 2
        assert service.rate > 0
        stop = threading.Event()

        def ask():
            while not stop.is_set():
                scorer.score_window(window)
                time.sleep(0.001)

        other = threading.Thread(target=ask)
        other.start()
        try:
            with pytest.raises(CommandError, match="cannot be told apart"):
                closed_loop(scorer, statistics, window, 1, 0.3)
        finally:
            stop.set()
            other.join()


def test_a_server_that_is_not_there():
    with pytest.raises(ServerError) as caught:
        Statistics("grpc://127.0.0.1:1", timeout_s=5)
    assert caught.value.reason is Reason.SERVER_AWAY


@pytest.mark.server
def test_how_much_a_message_is_more_than_its_tensors(serve_probe, probe_bundle):
    """Less than the 512 bytes that are allowed for, HTTP/2's frames and the metadata besides."""
    from lymphcad_serve.capacity.sizing import MESSAGE_BYTES

    window = sample_window(probe_bundle.manifest.preprocess)
    with TritonScorer(serve_probe("embedded")) as scorer:
        request = scorer._request(window, None)
        answer = scorer._ask(scorer._stub.ModelInfer, request)
    assert isinstance(request, messages.ModelInferRequest)
    heatmap = probe_bundle.manifest.preprocess.size**2
    assert 0 < request.ByteSize() - window.image.nbytes < MESSAGE_BYTES / 2
    assert 0 < answer.ByteSize() - heatmap < MESSAGE_BYTES / 2


@pytest.mark.server
def test_the_benchmark_prints_what_others_read(probe_bundle):
    few = ("--seconds", "0.5", "--rounds", "1")
    command = [sys.executable, "-m", "benchmarks.capacity", "--json", "--bundle", str(probe_bundle.path), *few]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert list(found["open"]) == ["0.3", "0.6", "0.8", "0.5, studies of 8"]
    for one in found["open"].values():
        assert one["mean_ratio"][0] == pytest.approx(one["mean_simulated_ms"][0] / one["mean_ms"][0], rel=0.01)
        assert one["nodes"][0] > 10
    assert 50 < found["memory_mb"] < 5000
    assert "| 0.3 |" in done.stderr


def test_a_simulation_of_a_fit_gives_the_rate_that_it_was_fitted_to():
    made = Service(0.004, 0.003, 2, (2,), 16, 0.0, 0.2)
    found = simulate(np.zeros(4000), fit(levels(made), EMBEDDED), 1, np.random.default_rng(0))
    assert 4000 / found.span_s == pytest.approx(made.rate, rel=0.01)
