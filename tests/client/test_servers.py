"""Several real servers that die, hang, are slow, answer nonsense, or are replaced while they are asked."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from lymphcad_client.confirming import Confirmation
from lymphcad_client.servers import TRIES, Servers
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import free_ports
from servers import CRASHES, FAILS, NONSENSE, RIGHT, SLOW, odd_repository, started

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad.geometry import Window

WINDOW = Window(np.zeros((128, 128), np.int16), (64.0, 64.0), (0.5, 0.5))
CALLERS = 8


@pytest.fixture
def run(tmp_path, probe_bundle):
    """Return a function that starts a server on what a line of Python answers; "" is the real model."""
    with contextlib.ExitStack() as stack:

        def start(body="", bundle=probe_bundle, ports=None):
            models = tmp_path / f"models{len(list(tmp_path.iterdir()))}"
            if body:
                odd_repository(models, bundle, body)
            else:
                write_repository(bundle, models, Target.EMBEDDED)
            return stack.enter_context(started(models, ports or free_ports()))

        yield start


def kill(server, number=signal.SIGKILL):
    os.killpg(server.pid, number)


class Asking:
    """Threads that score one window again and again, as fast as they are answered, until they are stopped."""

    def __init__(self, scorer):
        self.found, self.failed, self.went_on = [], [], threading.Event()
        self._scorer, self._stop = scorer, False
        self._pool = ThreadPoolExecutor(CALLERS)

    def __enter__(self):
        self._futures = [self._pool.submit(self._ask) for _ in range(CALLERS)]
        return self

    def __exit__(self, *_):
        self._stop = True
        self._pool.shutdown()
        for future in self._futures:
            future.result()

    def _ask(self):
        while not self._stop:
            try:
                self.found.append(self._scorer.score_window(WINDOW).probability)
            except ServerError as error:  # noqa: PERF203
                self.failed.append(error.reason)

    def wait_for(self, count, seconds=60):
        """Wait until so many more were answered."""
        wanted, deadline = len(self.found) + count, time.monotonic() + seconds
        while len(self.found) < wanted:
            assert time.monotonic() < deadline, self.failed
            time.sleep(0.01)


@pytest.mark.server
def test_one_of_two_dies_and_comes_back(run):
    first, second = run(), run()
    with TritonScorer(first.address) as scorer:
        expected = scorer.score_window(WINDOW).probability
    with Servers([first.address, second.address]) as servers, Asking(servers) as asking:
        asking.wait_for(20)
        kill(first)
        asking.wait_for(200)
        revived = run(ports=ports_of(first))
        asking.wait_for(50)
        wait_until(lambda: servers._servers[0].mending is None)
        kill(second)
        asking.wait_for(200)
    assert not asking.failed
    assert set(asking.found) == {expected}
    assert revived.address == first.address


@pytest.mark.server
def test_the_only_one_is_away_for_a_while(run):
    first = run()
    with Servers([first.address]) as servers, Asking(servers) as asking:
        asking.wait_for(20)
        kill(first)
        time.sleep(1)
        run(ports=ports_of(first))
        asking.wait_for(100)
    assert not asking.failed


@pytest.mark.server
def test_started_again_between_two_nodes(run):
    """It does not know the shared memory of before; that is no fault of the node's."""
    first = run()
    with Servers([first.address]) as servers:
        expected = servers.score_window(WINDOW).probability
        kill(first)
        run(ports=ports_of(first))
        assert [servers.score_window(WINDOW).probability for _ in range(3)] == [expected] * 3


@pytest.mark.server
def test_one_that_hangs(run):
    first, second = run(), run()
    with Servers([first.address, second.address], timeout_s=2) as servers, Asking(servers) as asking:
        asking.wait_for(20)
        kill(first, signal.SIGSTOP)
        wait_until(lambda: servers._servers[0].mending is not None)
        asking.wait_for(200)
        kill(first, signal.SIGCONT)
        wait_until(lambda: servers._servers[0].mending is None)
        asking.wait_for(50)
        assert servers._servers[0].failures == 0 or servers._servers[0].mending is None
    assert not asking.failed


@pytest.mark.server
def test_a_slow_one_gets_less(run):
    slow, fast = run(SLOW), run(RIGHT)
    with Servers([slow.address, fast.address]) as servers:
        chosen = count_choices(servers)
        with Asking(servers) as asking:
            asking.wait_for(400)
    assert not asking.failed
    assert chosen.count(fast.address) > 5 * chosen.count(slow.address) > 0


@pytest.mark.server
def test_nonsense_is_asked_for_elsewhere(run):
    odd, right = run(NONSENSE), run(RIGHT)
    with Servers([odd.address, right.address]) as servers, Asking(servers) as asking:
        asking.wait_for(100)
    assert not asking.failed
    assert set(asking.found) == {0.25}


@pytest.mark.server
def test_nonsense_alone_is_no_score(run):
    with Servers([run(NONSENSE).address], patience_s=30) as servers:
        chosen = count_choices(servers)
        with pytest.raises(ServerError) as failed:
            servers.score_window(WINDOW)
    assert failed.value.reason is Reason.BAD_ANSWER
    assert len(chosen) == 1


@pytest.mark.server
def test_what_is_the_nodes_own_is_not_tried_again(run):
    with Servers([run(FAILS).address, run(RIGHT).address]) as servers:
        reasons, chosen = [], count_choices(servers)
        for _ in range(20):
            try:
                servers.score_window(WINDOW)
            except ServerError as error:  # noqa: PERF203
                reasons.append(error.reason)
        # Both have nothing in flight each time, so the first is asked; and its circuit stays closed.
        assert reasons == [Reason.SERVER_ERROR] * 20
        assert len(chosen) == 20
        assert servers._servers[0].mending is None


@pytest.mark.server
def test_a_node_that_its_servers_die_of_is_given_up(run):
    """Each time it is tried the model's process takes the server with it."""
    server = run(CRASHES)
    with Servers([server.address], patience_s=60) as servers:
        chosen = count_choices(servers)
        stop = threading.Event()

        def start_again():
            ports = ports_of(server)
            while not stop.is_set():
                wait_until(lambda: not alive(server.address) or stop.is_set())
                if not stop.is_set():
                    with contextlib.suppress(
                        ServerError, CommandError
                    ):  # it died as it began, or its port is not free yet
                        run(CRASHES, ports=ports)

        watcher = threading.Thread(target=start_again)
        watcher.start()
        try:
            with pytest.raises(ServerError) as failed:
                servers.score_window(WINDOW)
        finally:
            stop.set()
            watcher.join()
    assert failed.value.reason is Reason.SERVER_AWAY
    assert len(chosen) == TRIES


@pytest.mark.server
def test_another_bundle_behind_the_address(run, half_bundle):
    """No answer of another bundle counts, however fast the server is replaced."""
    first = run(RIGHT)
    with Servers([first.address], patience_s=4) as servers, Asking(servers) as asking:
        asking.wait_for(20)
        kill(first)
        run("probability = np.full((count, 1), 0.75, np.float32)", bundle=half_bundle, ports=ports_of(first))
        wait_until(lambda: Reason.OTHER_BUNDLE in asking.failed)
    assert set(asking.found) == {0.25}


@pytest.mark.server
def test_nobody_answers_any_more(run):
    first = run()
    with Servers([first.address], patience_s=1.5) as servers:
        time.sleep(1.5)
        servers.score_window(WINDOW)
        kill(first)
        killed = time.monotonic()
        with pytest.raises(ServerError) as failed:
            servers.score_window(WINDOW)
        assert failed.value.reason is Reason.SERVER_AWAY
        assert time.monotonic() - killed > 1.2  # patience begins with the last answer
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(ServerError):
                servers.score_window(WINDOW)
        assert time.monotonic() - began < 1  # patience was for all of them together
        run(ports=ports_of(first))
        wait_until(lambda: servers._servers[0].mending is None)
        servers.score_window(WINDOW)


@pytest.mark.server
def test_one_is_away_at_the_start(run):
    first, away = run(), free_ports()
    with Servers([f"grpc://127.0.0.1:{away.grpc}", first.address]) as servers:
        assert f"Away at the start, and asked again from time to time: grpc://127.0.0.1:{away.grpc}." in servers.about
        servers.score_window(WINDOW)
        run(ports=away)
        wait_until(lambda: servers._servers[0].mending is None)
        assert servers._servers[0].scorer is not None


@pytest.mark.server
def test_servers_that_do_not_belong_together(run, half_bundle):
    first, other = run(), run(bundle=half_bundle)
    with pytest.raises(ServerError) as failed:
        Servers([first.address, other.address])
    assert failed.value.reason is Reason.OTHER_BUNDLE
    with pytest.raises(CommandError, match="twice"):
        Servers([first.address, first.address])
    nobody = [f"grpc://127.0.0.1:{free_ports().grpc}" for _ in range(2)]
    with pytest.raises(ServerError) as failed:
        Servers(nobody)
    assert failed.value.reason is Reason.SERVER_AWAY


@pytest.mark.server
def test_waiting_ends_when_it_is_told_to(run):
    first = run()
    with Servers([first.address], patience_s=600) as servers:
        kill(first)
        threading.Timer(1, servers.wait_no_longer).start()
        with pytest.raises(ServerError):
            servers.score_window(WINDOW)


def test_one_question_for_many_answers():
    """Each caller's question is begun after its call; callers that come together share one."""
    begun, release, asked = [], threading.Event(), threading.Event()

    def ask():
        begun.append(time.monotonic())
        asked.set()
        release.wait()

    confirmation = Confirmation(ask)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(confirmation.wait)
        asked.wait()
        came = time.monotonic()
        others = [pool.submit(confirmation.wait) for _ in range(8)]
        time.sleep(0.1)
        assert not any(other.done() for other in others)
        release.set()
        for one in (first, *others):
            one.result()
    assert len(begun) == 2
    assert begun[1] > came


def test_a_question_that_fails_fails_for_all_who_wait():
    release, asked, count = threading.Event(), threading.Event(), 0

    def ask():
        nonlocal count
        count += 1
        asked.set()
        release.wait()
        if count == 2:
            raise ServerError(Reason.OTHER_BUNDLE, "made for the test")

    confirmation = Confirmation(ask)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(confirmation.wait)
        asked.wait()
        others = [pool.submit(confirmation.wait) for _ in range(4)]
        time.sleep(0.1)
        release.set()
        first.result()
        for other in others:
            with pytest.raises(ServerError):
                other.result()
    confirmation.wait()


def count_choices(servers):
    """Return the list that the address of each server is put into when it is chosen."""
    chosen, choose = [], servers._choose

    def counted(*arguments):
        found = choose(*arguments)
        chosen.append(found[0].address)
        return found

    servers._choose = counted
    return chosen


def ports_of(server):
    """Return ports with the same address: the other two may still be taken for a moment."""
    from dataclasses import replace

    return replace(free_ports(), grpc=int(server.address.rpartition(":")[2]))


def alive(address):
    try:
        TritonScorer(address, timeout_s=2).close()
    except ServerError:
        return False
    return True


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
