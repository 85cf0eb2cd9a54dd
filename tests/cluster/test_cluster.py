"""A cluster at work: servers are killed and cut off, the balancer is reloaded and killed, a new bundle comes and goes.

No request is lost, and nobody gets an answer of another bundle.
"""

from __future__ import annotations

import signal

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.release.balancer import reload
from scoring import rows_of, start, wait_for_nodes

from lymphcad.errors import CommandError
from lymphcad.geometry import Window

pytestmark = pytest.mark.server
WINDOW = Window(np.full((128, 128), 60, np.int16), (64.0, 64.0), (0.5, 0.5))
SLOW_S = 0.1
"""Before each batch of a server, of two nodes."""
SCORERS, SHARE = 200, 25
_FEWEST, _MOST = 20, 82  # of 200 with a chance of 25 %: outside of them once in 300,000 times


@pytest.fixture
def batch(cluster, table, tmp_path):
    """Return what starts a batch and waits until it is at work; it goes on slowly until its rows are asked for."""
    running, done = [], []

    def run(name):
        out = tmp_path / name
        process = start(table, out, "--server", cluster.address, "--no-overlays")
        running.append(process)
        wait_for_nodes(process, out, 50)

        def rows():
            assert done or process.poll() is None, "the batch was over before anything happened to it"
            done.append(name)
            cluster.pause(0)
            _, error = process.communicate(timeout=120)
            assert process.returncode == 3, error
            return rows_of(out)

        return rows

    cluster.pause(SLOW_S)
    yield run
    cluster.pause(0)
    for process in running:
        process.kill()
        process.communicate()


def test_a_server_is_killed_and_then_all_are(cluster, machines, quiet, batch):
    rows = batch("out")
    machines.old.kill(0)
    cluster.balancer.wait_for(stable1=False, stable2=True)
    assert cluster.balancer.ask("/ready") == 200
    machines.old.kill(1)
    cluster.balancer.wait_for(stable1=False, stable2=False)
    assert cluster.balancer.ask("/ready") == 503
    machines.old.start(0)
    machines.old.start(1)
    assert rows() == quiet.old


def test_a_server_is_cut_off(cluster, machines, quiet, batch):
    """It says nothing any more and closes nothing, as behind a network that is cut."""
    rows = batch("out")
    machines.old.kill(0, signal.SIGSTOP)
    try:
        cluster.balancer.wait_for(stable1=False, stable2=True)
        assert rows() == quiet.old
    finally:
        machines.old.start(0)  # Triton's Python backend does not survive such a stop


def test_the_balancer_is_reloaded_and_killed(cluster, quiet, batch):
    rows = batch("out")
    reload(str(cluster.balancer.socket))
    reload(str(cluster.balancer.process.pid))
    cluster.balancer.kill()
    cluster.balancer.start()
    assert rows() == quiet.old


def test_an_upgrade_while_batches_run_and_the_way_back(cluster, machines, quiet, batch):
    first = batch("first")
    cluster.promote(*cluster.group(machines.new), "--verify", "--share", 100, reload=True)
    second = batch("second")
    cluster.promote("--finish", reload=True)
    with TritonScorer(cluster.address) as scorer:
        assert scorer.digest == machines.new.bundle.digest
    cluster.promote("--back", reload=True)
    third = batch("third")
    assert (first(), second(), third()) == (quiet.old, quiet.new, quiet.old)


def test_a_share_of_the_scorers_gets_the_candidate(cluster, machines):
    cluster.promote(*cluster.group(machines.new), "--share", SHARE, reload=True)
    expected, got = {}, []
    for group in (machines.old, machines.new):
        with TritonScorer(group.addresses[0]) as scorer:
            expected[group.bundle.digest] = scorer.score_window(WINDOW).probability
    assert len(set(expected.values())) == 2
    for _ in range(SCORERS):
        with TritonScorer(cluster.address) as scorer:
            got.append(scorer.digest)
            assert [scorer.score_window(WINDOW).probability for _ in range(3)] == [expected[scorer.digest]] * 3
            scorer.check()
    assert _FEWEST <= got.count(machines.new.bundle.digest) <= _MOST
    for digest in expected:  # who asks for one gets it
        for _ in range(10):
            with TritonScorer(cluster.address, bundle_digest=digest) as scorer:
                assert scorer.digest == digest


def test_a_server_of_another_bundle_is_none_of_its_group(cluster, machines):
    """Somebody starts a server anew with the new bundle, and the balancer still takes it for one of the old."""
    text = cluster.config.read_text()
    wrong = text.replace(*(group.addresses[1].removeprefix("grpc://") for group in (machines.old, machines.new)))
    assert wrong != text
    cluster.config.write_text(wrong)
    reload(str(cluster.balancer.socket))
    cluster.balancer.wait_for(stable1=True, stable2=False)
    for _ in range(20):
        with TritonScorer(cluster.address) as scorer:
            assert scorer.digest == machines.old.bundle.digest


def test_a_configuration_that_cannot_start_leaves_the_old_one_at_work(cluster, machines):
    cluster.config.write_text("no configuration")
    with pytest.raises(CommandError, match="goes on with the old one"):
        reload(str(cluster.balancer.socket))
    with TritonScorer(cluster.address) as scorer:
        assert scorer.digest == machines.old.bundle.digest
