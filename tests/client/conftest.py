"""What the tests of the watch share."""

from __future__ import annotations

import pytest
from watching import Clock, use


@pytest.fixture
def boxes(tmp_path):
    """Return an inbox and an outbox."""
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    outbox.mkdir()
    return inbox, outbox


@pytest.fixture
def no_waiting(monkeypatch):
    """Put a clock that a test moves in the place of the watch's."""
    use(Clock(), monkeypatch)
