"""A node in a process of its own, which a test kills; run by `test_listen_kill.py`.

    python run_node.py FOLDER PACS_PORT [EVENT PATTERN NUMBER]

It prints its port, and a line for each delivery. With the last three it kills itself with -9 just before the file
system is asked for the NUMBERth EVENT, e.g. ``os.rename``, of which the paths match PATTERN.
"""

import os
import re
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from listening import DEMO, dicom_send
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_client.listen.run import Node
from lymphcad_client.listen.spool import Spool

from lymphcad.bundle import Bundle

folder, pacs_port, *kill = sys.argv[1:]


def killer(event, pattern, number):
    left, lock = int(number), threading.Lock()

    def hook(name, arguments):
        nonlocal left
        if name == event and re.search(pattern, "|".join(map(str, arguments[:2]))):
            with lock:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

    return hook


def say(event):
    sys.stdout.write(f"{type(event).__name__} {getattr(event, 'status', event)}\n")
    sys.stdout.flush()


if kill:
    sys.addaudithook(killer(*kill))
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with EdgeScorer(Bundle(DEMO), runner="onnxruntime") as scorer:
    Node(
        Spool(Path(folder)),
        scorer,
        dicom_send(int(pacs_port)),
        say,
        port=0,
        ae_title="NODE",
        kinds=["sr", "sc"],
        settle_s=0.1,
        keep_s=3600,
    ).run(stop, lambda port: (sys.stdout.write(f"{port}\n"), sys.stdout.flush()))
