"""When something happened, as it stands in files that this package writes."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """Return the time, UTC, ms (RFC 3339)."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
