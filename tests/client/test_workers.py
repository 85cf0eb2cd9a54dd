"""Processes that are killed: each task has its answer, except one that ends two of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import deadly
import psutil
import pytest
from lymphcad_client.workers import WorkerDied, Workers

from lymphcad.errors import CommandError, Reason, Refusal, ServerError


@pytest.fixture(scope="module")
def two():
    with Workers(2) as workers:
        yield workers


def everybody(workers):
    """Return the processes of a pool that have begun."""
    pids = {workers.submit(deadly.where).result()}
    while len(pids) < workers.jobs:
        pids.update(task.result() for task in [workers.submit(deadly.where) for _ in range(8)])
    return pids


def test_a_task_whose_process_is_killed_is_done_again_and_others_do_not_notice(two, tmp_path):
    before = everybody(two)
    other = two.submit(time.sleep, 0.5)
    killed = two.submit(deadly.end_here, tmp_path, 1)
    assert killed.result() == "done"
    assert other.result() is None
    assert len(list(tmp_path.iterdir())) == 2
    assert len(before & everybody(two)) == 1


def test_a_task_that_ends_two_processes_fails_alone(two, tmp_path):
    others = [two.submit(deadly.where) for _ in range(10)]
    with pytest.raises(WorkerDied):
        two.submit(deadly.end_here, tmp_path, 9).result()
    assert len(list(tmp_path.iterdir())) == 2
    assert all(other.result() for other in others)
    assert len(everybody(two)) == 2


def test_a_process_that_is_killed_while_it_answers_blocks_nobody(two):
    tasks = [two.submit(deadly.answer_in_half), *(two.submit(deadly.where) for _ in range(10))]
    assert isinstance(tasks[0].exception(30), WorkerDied)
    assert all(task.result(30) for task in tasks[1:])


def test_processes_that_are_killed_while_they_wait(two):
    before = everybody(two)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert not before & everybody(two)


def test_ctrl_c_is_left_to_the_caller(two):
    before = everybody(two)
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert everybody(two) == before


@pytest.mark.parametrize("kind", [Refusal, ServerError])
def test_what_a_task_raises_is_raised_here(two, kind):
    reason = Reason.NO_SUCH_FRAME if kind is Refusal else Reason.SERVER_BUSY
    found = two.submit(deadly.fail, kind(reason, "made for the test")).exception()
    assert type(found) is kind
    assert found.reason is reason
    assert str(found) == f"{reason.value}: made for the test"
    assert "in fail" in str(found.__cause__)  # where it was raised


def test_closed(tmp_path):
    with Workers(1) as workers:
        running = workers.submit(time.sleep, 0.3)
        begun = workers.submit(deadly.where)
        children = [psutil.Process(pid) for pid in everybody(workers)]
        running.result()
        begun.result()
        last = [workers.submit(time.sleep, 0.2) for _ in range(3)]
    assert sum(task.cancelled() for task in last) >= 1
    assert not any(child.is_running() for child in children)


def test_processes_that_cannot_begin(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Workers(1) as workers, pytest.raises(CommandError, match="end as they begin"):
        workers.submit(deadly.where).result()


def test_no_process_can_be_started():
    limited = """
import os, resource
from lymphcad.errors import CommandError
from lymphcad_client.workers import Workers
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")),) * 2)
try:
    Workers(4)
except CommandError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("no process can be started (Too many open files): "), done.stderr


SCRIPT = """
import sys, time
from lymphcad_client.workers import Workers

def main():
    with Workers(2) as workers:
        for seconds in (1, 60):
            tasks = [workers.submit(time.sleep, seconds) for _ in range(2)]
            time.sleep(0.2)
            if seconds == 1:
                [task.result() for task in tasks]
        print("begun", flush=True)
        tasks[0].result()
"""


def test_a_script_that_is_not_guarded(tmp_path):
    (tmp_path / "script.py").write_text(f"{SCRIPT}\nmain()\n")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "CommandError: processes that should read images end as they begin" in done.stderr


def test_no_process_is_left_when_the_caller_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(f"{SCRIPT}\nif __name__ == '__main__':\n    main()\n")
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()  # and no reading: those who hold the other end are what is looked for
    _, left = psutil.wait_procs(children, timeout=5)
    process.stdout.close()
    assert not left
