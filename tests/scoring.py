"""Runs of `lymphcad score` in processes of their own that a test watches, stops and kills."""

from __future__ import annotations

import contextlib
import csv
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lymphcad_client.journal import JOURNAL
from lymphcad_client.results import COLUMNS


def start(table, out, *options):
    command = [sys.executable, "-m", "lymphcad", "score", "--nodes", table, "--out", out, *options]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(table, out, *options, code=0):
    """Run it to its end, and return what it said on standard output and error."""
    process = start(table, out, *options)
    said, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    return said, error


def journalled(out, status="%"):
    """Return how many nodes the journal of a run has that goes on: the run has it locked, so a copy is looked at."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (JOURNAL, f"{JOURNAL}-wal"):
            if (out / name).exists():
                shutil.copy(out / name, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / JOURNAL)) as database:
            try:
                return database.execute("SELECT count(*) FROM node WHERE status LIKE ?", (status,)).fetchone()[0]
            except sqlite3.Error:  # it has no tables yet, or was copied while it was written
                return 0


def wait_for_nodes(process, out, count, seconds=120):
    deadline = time.monotonic() + seconds
    while (found := journalled(out) if out.exists() else 0) < count:
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def limit_files(process, size):
    """Let no file of a process grow beyond a size from now on, as on a disk that is full."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def rows_of(out):
    with (out / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows)
    return rows
