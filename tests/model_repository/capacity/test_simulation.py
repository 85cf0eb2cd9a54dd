"""The simulation of the queue against queues whose answer is known, and what holds for every queue."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lymphcad_serve.capacity.arrivals import poisson, studies
from lymphcad_serve.capacity.service import Service
from lymphcad_serve.capacity.simulation import simulate

from lymphcad.errors import CommandError

COUNT = 60_000


def mean_wait(service, load, *, replicas=1, policy="leastconn", seed=1):
    generator = np.random.default_rng(seed)
    rate = load * service.instances * replicas / service.batch_s(1, 1)
    return simulate(poisson(rate, COUNT, generator), service, replicas, generator, policy).waited_s.mean()


@pytest.mark.parametrize("variation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_waits_as_pollaczek_and_khinchine_say(load, variation):
    """M/D/1 at variation 0, M/M/1 at 1: W = load / (1 - load) * (1 + variation**2) / 2 of a service time."""
    service = Service(0.0, 0.02, variation=variation)
    expected = load / (1 - load) * (1 + variation**2) / 2 * 0.02
    assert mean_wait(service, load) == pytest.approx(expected, rel=0.06)


def erlang_c(servers, load):
    """Return the mean wait of M/M/c in service times."""
    offered = servers * load
    free = sum(offered**k / math.factorial(k) for k in range(servers))
    all_busy = offered**servers / math.factorial(servers) / (1 - load)
    return all_busy / (free + all_busy) / (servers * (1 - load))


@pytest.mark.parametrize("instances", [2, 5])
def test_several_instances(instances):
    """M/M/c exactly; M/D/c lies between half of it, its limit in heavy traffic, and all of it."""
    load = 0.8
    expected = 0.02 * erlang_c(instances, load)
    assert mean_wait(Service(0.0, 0.02, instances, variation=1.0), load) == pytest.approx(expected, rel=0.06)
    constant = mean_wait(Service(0.0, 0.02, instances), load)
    assert 0.5 * expected < constant < 0.65 * expected


def test_a_server_that_is_shared_is_slower_the_more_are_busy():
    """Two instances, each half as fast when both are busy, finish work as one does: processor sharing, M/M/1's mean."""
    load, one = 0.6, 0.02
    service = Service(0.0, one, 2, slowdown=1.0, variation=1.0)
    generator = np.random.default_rng(3)
    found = simulate(poisson(load / one, COUNT, generator), service, 1, generator)
    assert found.answered_s.mean() == pytest.approx(one / (1 - load), rel=0.06)


def test_policies():
    """Replicas in turn at random arrivals wait as Erlang-2 arrivals do, more than those with the fewest in flight."""
    service = Service(0.0, 0.02, variation=1.0)
    turns = mean_wait(service, 0.8, replicas=2, policy="roundrobin")
    fewest = mean_wait(service, 0.8, replicas=2)
    # G/M/1: sigma solves sigma = E[exp(-mu (1 - sigma) T)], T the sum of two gaps at the rate of both replicas.
    gap, sigma = 2 * 0.8, 0.5
    for _ in range(200):
        sigma = (gap / (gap + 1 - sigma)) ** 2
    assert turns == pytest.approx(0.02 * sigma / (1 - sigma), rel=0.06)
    assert 0.02 * erlang_c(2, 0.8) < fewest < 0.8 * turns


def test_by_hand():
    """Two at once in a batch, the third alone; what comes while one is busy waits and is batched."""
    service = Service(1.0, 0.5, preferred=(2,), most=4, overhead_s=0.25)
    found = simulate(np.array([0.0, 0.1, 0.2, 0.3, 5.0]), service, 1, np.random.default_rng(0))
    # 0 alone until 1.5; then 1 and 2 until 3.5; 3 alone until 5.0, when 4 comes and goes alone until 6.5
    np.testing.assert_allclose(found.answered_s, [1.75, 3.65, 3.55, 4.95, 1.75])
    np.testing.assert_allclose(found.waited_s, [0.0, 1.4, 1.3, 3.2, 0.0], atol=1e-12)
    assert found.batch.tolist() == [1, 2, 2, 1, 1]
    assert (found.busy, found.span_s, found.most_in_system) == (pytest.approx(1.0), pytest.approx(6.5), 4)


def test_a_delay_gathers_a_batch():
    """Alone, one waits for the delay; the first of a preferred size goes at once."""
    service = Service(0.0, 1.0, instances=4, preferred=(2, 4), most=4, delay_s=0.5)
    found = simulate(np.array([0.0, 10.0, 10.2, 20.0, 20.0, 20.0]), service, 1, np.random.default_rng(0))
    np.testing.assert_allclose(found.waited_s, [0.5, 0.2, 0.0, 0.0, 0.0, 0.5], atol=1e-9)
    assert found.batch.tolist() == [1, 2, 2, 2, 2, 1]


def test_what_tritons_batcher_takes():
    at_once = Service(0.0, 1.0, preferred=(2,), most=16)
    assert [at_once.take(waiting, 0.0) for waiting in (1, 2, 3, 9)] == [1, 2, 2, 2]
    delayed = Service(0.0, 1.0, preferred=(8, 16), most=20, delay_s=0.002)
    assert [delayed.take(waiting, 0.001) for waiting in (7, 8, 15, 16, 30)] == [0, 8, 8, 16, 16]
    assert [delayed.take(waiting, 0.002) for waiting in (7, 15, 30)] == [7, 15, 20]
    assert Service(0.0, 1.0, most=4).take(9, 0.0) == 4
    assert Service(0.0, 1.0, most=4, delay_s=1.0).take(3, 0.5) == 0


def test_studies_bring_their_nodes_at_once():
    found = studies(5.0, 8.0, COUNT, np.random.default_rng(0))
    times, sizes = np.unique(found, return_counts=True)
    assert len(found) >= COUNT
    assert len(found) / found[-1] == pytest.approx(5.0, rel=0.05)
    assert sizes.mean() == pytest.approx(8.0, rel=0.02)
    assert sizes.min() >= 1
    assert np.diff(times).std() == pytest.approx(8.0 / 5.0, rel=0.05)  # exponential: as large as its mean
    np.testing.assert_allclose(np.unique(studies(5.0, 1.0, 100, np.random.default_rng(0)), return_counts=True)[1], 1)


def test_values_that_cannot_be():
    for wrong in (
        {"first_s": -1.0, "each_s": 1.0},
        {"first_s": 0.0, "each_s": 0.0},
        {"first_s": math.nan, "each_s": 1.0},
        {"first_s": 0.0, "each_s": 1.0, "instances": 0},
        {"first_s": 0.0, "each_s": 1.0, "preferred": (4, 2), "most": 8},
        {"first_s": 0.0, "each_s": 1.0, "preferred": (4,), "most": 2},
    ):
        with pytest.raises(CommandError):
            Service(**wrong)


SERVICES = st.builds(
    lambda first, each, instances, sizes, more, delay, slowdown, variation: Service(
        first, each, instances, tuple(sorted(sizes)), max(sizes, default=1) + more, delay, slowdown, variation
    ),
    st.floats(0, 0.1), st.floats(0.001, 0.1), st.integers(1, 4), st.sets(st.integers(1, 16), max_size=3),
    st.integers(0, 4), st.sampled_from([0.0, 0.002, 0.5]), st.floats(0, 1), st.sampled_from([0.0, 0.3, 1.0]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    service=SERVICES,
    gaps=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.5]), min_size=1, max_size=120),
    replicas=st.integers(1, 3),
    policy=st.sampled_from(["leastconn", "roundrobin"]),
)
def test_what_holds_for_every_queue(service, gaps, replicas, policy):
    arrivals = np.cumsum(gaps)
    found = simulate(arrivals, service, replicas, np.random.default_rng(0), policy)
    # Each leaves once, after it came.
    assert (found.answers == 1).all()
    assert (found.waited_s >= -1e-9).all()
    assert (found.answered_s > found.waited_s).all()
    # Little's law, L = lambda W: L is counted event by event, W is each node's own.
    inside = found.answered_s - service.overhead_s
    assert found.in_system * found.span_s == pytest.approx(inside.sum(), rel=1e-6, abs=1e-6)
    assert 0 < found.busy <= 1 + 1e-9
    assert found.batch.max() <= service.most
    assert found.most_in_system <= len(arrivals)
    # First come, first taken, in each replica.
    for replica in range(replicas):
        started = (arrivals + found.waited_s)[found.replica == replica]
        assert (np.diff(started) >= -1e-9).all()
    # Nothing waits for longer than the delay beside an instance that is free: a lone node never does.
    if len(arrivals) == 1:
        assert found.waited_s[0] == pytest.approx(0.0 if service.take(1, 0.0) else service.delay_s)


def test_the_seed_decides():
    service = Service(0.001, 0.01, 2, (2,), 8, variation=0.5)
    runs = [
        simulate(poisson(90, 500, generator), service, 2, generator).answered_s
        for generator in map(np.random.default_rng, (1, 1, 2))
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
