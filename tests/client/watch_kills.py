"""Kill `lymphcad watch` before each of its steps in the file system, and start it again; run by `test_watch_kill.py`.

    python watch_kills.py STUDIES RUNS BUNDLE

Each run has a copy of the folder STUDIES, with its ``in`` and ``out``, in RUNS/NUMBER. Beside it stand ``killed.json``,
before which step it was killed and what was published then, and ``ended.json``, the same of the start after it. All is
loaded once: each run is a fork.
"""

import json
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

import lymphcad_client.edge.onnxruntime
import lymphcad_client.edge.scorer
import lymphcad_client.watch.command
import lymphcad_client.watch.watcher  # noqa: F401 - all of them are loaded before the first fork

from lymphcad.cli import main

STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}


def watch(folder, bundle, kill_before=None):
    """Run the command in a fork, killed before its step of that number from 1; return what it ended with."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    with (folder / "said.txt").open("a") as said:
        os.dup2(said.fileno(), 2)
    if kill_before is not None:
        sys.addaudithook(counter(folder, kill_before))
    try:
        options = ["--edge", bundle, "--out", str(folder / "out"), "--runner", "onnxruntime", "--settle", "0"]
        main(["watch", str(folder / "in"), *options, "--once"])
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(70)


def counter(folder, kill_before):
    """Return a hook that counts all openings, renamings and removals in a folder."""
    steps, inside = 0, str(folder / "")

    def hook(event, arguments):
        nonlocal steps
        # A tree is removed by names without their folder.
        if event not in STEPS or (event not in ("os.remove", "os.rmdir") and inside not in str(arguments[0])):
            return
        steps += 1
        if steps == kill_before:
            killed = {"step": f"{event} {arguments[:2]}", "published": published(folder)}
            (folder / "killed.json").write_text(json.dumps(killed))
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def published(folder):
    """Return the results that have their name, and the inodes of their tables: written again they are others."""
    found = folder.joinpath("out").glob("[!.]*/results.csv")
    return {path.parent.name: path.stat().st_ino for path in found}


def run(studies, runs, bundle):
    """Kill before step 1, 2, 3 ... until there is no such step."""
    for number in count(1):
        folder = runs / str(number)
        shutil.copytree(studies, folder, symlinks=True)
        ended = watch(folder, bundle, number)
        if os.WIFEXITED(ended):
            shutil.rmtree(folder)
            return
        again = watch(folder, bundle)
        (folder / "ended.json").write_text(json.dumps([again, published(folder)]))


run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
