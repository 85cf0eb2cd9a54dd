"""The sessions that the page has let in: they alone may upload, and what they hold goes soon after their browser."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

if TYPE_CHECKING:
    from typing import NoReturn

KEPT_S = 20.0
"""How long a session outlives its connection: a reload of the page, a short loss of the network."""
_LOOK_S = 1.0
_connected: dict[str, float] = {}
"""When each was last seen to be, s of the monotonic clock."""


def let_in() -> None:
    """Remember the session for which the page is run."""
    session = get_script_run_ctx()
    if session is not None:
        _connected[session.session_id] = time.monotonic()


def is_in(session_id: str) -> bool:
    """Tell whether a session was let in."""
    return session_id in _connected


async def close_abandoned() -> NoReturn:
    """Close each session `KEPT_S` after its connection; Streamlit's own limit drops one when another ends, or never."""
    while True:
        await asyncio.sleep(_LOOK_S)
        now, runtime = time.monotonic(), get_instance()
        for session_id, seen in list(_connected.items()):
            if runtime.is_active_session(session_id):
                _connected[session_id] = now
            elif now - seen > KEPT_S:
                del _connected[session_id]
                runtime.close_session(session_id)
                gc.collect()
