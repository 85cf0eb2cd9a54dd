"""Asks a second bundle what the first was asked: from a queue, in threads of its own, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from lymphcad.errors import CommandError, Refusal, ServerError
from lymphcad_client.instants import now
from lymphcad_client.reading import digest_of
from lymphcad_client.shadow.pairs import Answer, Closed, Opened, Pair
from lymphcad_client.shadow.second import WindowTooSmallError

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Preprocess
    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad_client.observing import Seen
    from lymphcad_client.shadow.second import Second

MOST_WAITING = 64
"""Windows that wait: at most 128 MB, and of a neck CT 2 MB."""
FINISH_S = 10.0


class Shadow:
    """Compares each answer with that of a second bundle: an `lymphcad_client.observing.Observer`.

    Parameters
    ----------
    second
        Who is asked; closed with this.
    out
        File that a line is appended to for each pair; see `lymphcad_client.shadow.pairs`.
    most_waiting
        Windows that may wait; those beyond are skipped, and counted.
    finish_s
        How long `close` waits for those that do.

    Raises
    ------
    CommandError
        If the file cannot be written to.
    """

    def __init__(
        self, second: Second, out: Path, *, most_waiting: int = MOST_WAITING, finish_s: float = FINISH_S
    ) -> None:
        self._second, self._most_waiting, self._finish_s = second, most_waiting, finish_s
        self._queue: deque[tuple[Window, Finding, float, Preprocess]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._writing = threading.Lock()
        self._counts = {"pairs": 0, "failed": 0, "skipped": 0, "unanswered": 0}
        self._asked = 0
        self._ended = False
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = out.open("ab", buffering=0)
            self._torn = self._file.tell() > 0  # an empty line costs less than to look whether the last one is whole
            self._write(Opened(time=now()))
        except OSError as error:
            second.close()
            raise CommandError(
                f"'{out}' cannot be written to ({error.strerror}): make room, or name another --shadow-out"
            ) from None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(second.at_once)]
        for thread in self._threads:
            thread.start()

    def saw(self, seen: Seen) -> None:
        """Have the second bundle asked, if it has time."""
        with self._changed:
            if seen.window is None or seen.finding is None:
                self._counts["unanswered"] += 1
                return
            self._asked += 1
            if not self._closing and len(self._queue) < self._most_waiting:
                self._queue.append((seen.window, seen.finding, seen.seconds, seen.manifest.preprocess))
                self._changed.notify()

    def close(self) -> None:
        """Finish what waits, as far as there is time, and write down and say how much there was."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        deadline = time.monotonic() + self._finish_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        with self._changed:
            self._queue.clear()
        with self._writing:
            self._ended = True
            counts = self._counts
            counts["skipped"] = self._asked - counts["pairs"] - counts["failed"]
            said = f"Shadow: {counts['pairs']} pairs, {counts['failed']} failed, {counts['skipped']} skipped"
            try:
                self._write(Closed.model_validate({"time": now(), **counts}))
            except OSError as error:
                said += f", and the file cannot be written to ({error.strerror})"
            self._file.close()
        self._second.close()
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"{said}.")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
                waiting = self._queue.popleft()
            self._keep(self._compared(*waiting))

    def _compared(self, window: Window, first: Finding, seconds: float, preprocess: Preprocess) -> Pair:
        second = difference = error = None
        began = time.perf_counter()
        try:
            finding, own = self._second.ask(window, preprocess)
        except (Refusal, ServerError) as failed:
            error = failed.reason.value
        except WindowTooSmallError:
            error = "window_too_small"
        else:
            second = Answer.of(finding, time.perf_counter() - began)
            if own.field_of_view_mm == preprocess.field_of_view_mm and finding.heatmap.shape == first.heatmap.shape:
                difference = float(np.abs(finding.heatmap.astype(np.int16) - first.heatmap).mean())
        return Pair(
            time=now(),
            input_sha256=digest_of(window),
            first=Answer.of(first, seconds),
            second=second,
            heatmap_difference=difference,
            error=error,
        )

    def _keep(self, pair: Pair) -> None:
        with self._writing:
            if self._ended:
                return
            try:
                self._write(pair)
            except OSError:  # it is counted as skipped
                self._torn = True
            else:
                self._counts["failed" if pair.second is None else "pairs"] += 1

    def _write(self, line: Opened | Pair | Closed) -> None:
        rest = memoryview(b"\n" * self._torn + line.model_dump_json().encode() + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]
        self._torn = False
