"""`lymphcad listen`, which may kill itself; run by `test_listen_command.py`.

    python listen_kills.py EVENT PATTERN NUMBER listen ...

It kills itself with -9 just before the file system is asked for the NUMBERth EVENT, e.g. ``os.rename``, of which the
paths match PATTERN; with NUMBER 0 it does not.
"""

import os
import re
import signal
import sys
import threading

from lymphcad.cli import main


def killer(event, pattern, number):
    left, lock = number, threading.Lock()

    def hook(name, arguments):
        nonlocal left
        if name == event and re.search(pattern, "|".join(map(str, arguments[:2]))):
            with lock:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

    return hook


sys.addaudithook(killer(sys.argv[1], sys.argv[2], int(sys.argv[3])))
main(sys.argv[4:])
