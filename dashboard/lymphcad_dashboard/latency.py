"""How long answers took."""

from __future__ import annotations

import numpy as np


class Latency:
    """Of one session's answers, as its user waited for them."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """Count an answer that took so many seconds."""
        self._seconds.append(seconds)

    @property
    def n(self) -> int:
        """How many were counted."""
        return len(self._seconds)

    @property
    def mean_ms(self) -> float | None:
        """Their mean, ms; None without one."""
        return 1e3 * float(np.mean(self._seconds)) if self._seconds else None

    @property
    def p95_ms(self) -> float | None:
        """Their 95th percentile, ms, between two interpolated linearly; None without one."""
        return 1e3 * float(np.percentile(self._seconds, 95)) if self._seconds else None
