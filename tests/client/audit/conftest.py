"""Requests whose lines can be told by hand."""

from __future__ import annotations

import numpy as np
import pytest
from lymphcad_client.observing import Seen
from watching import Answers

from lymphcad.finding import Finding
from lymphcad.geometry import Window


@pytest.fixture
def seen_of():
    """Return a function that makes a request, by default one that was answered."""

    def make(probability=0.75, *, error=None, window=True, who="A. Reader", shade=40):
        image = np.full((128, 128), shade, np.int16)
        found = Finding(probability, "metastatic", 0.5, np.full((32, 32), 7, np.uint8), "made@000000000000")
        return Seen(
            Window(image, (64.0, 63.5), (0.5, 0.5)) if window else None,
            found if error is None else None,
            error,
            0.0123456,
            Answers.manifest,
            Answers.digest,
            who,
        )

    return make
