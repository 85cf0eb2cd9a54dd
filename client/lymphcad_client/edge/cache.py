"""Compiled models between two starts: one file for each bundle, precision and runner."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path


def default_cache() -> Path:
    """Return the user's folder for compiled models; it need not exist."""
    return user_cache_path("lymphcad") / "compiled"


@dataclass(frozen=True)
class CompiledModel:
    """The file of a compiled model: a line of JSON that says what it was compiled from, by what and for which CPU.

    Attributes
    ----------
    file
        Where it lies.
    made_of
        What must stand in that line: the bundle's digest among it.
    """

    file: Path
    made_of: dict[str, str]

    def read(self) -> tuple[bytes | None, str]:
        """Return the compiled model, and a sentence if one was there that cannot be used.

        Returns
        -------
        tuple of bytes or None and str
            None if there is none, it was made of something else (which needs no sentence: an update) or is damaged.
        """
        try:
            with self.file.open("rb") as file:
                line = file.readline()
                content = file.read()
        except OSError:
            return None, ""
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.pop("sha256", None) != hashlib.sha256(content).hexdigest():
            return None, "The compiled model in the cache was damaged, so it was compiled again."
        return (content, "") if said == self.made_of else (None, "")

    def write(self, content: bytes) -> str:
        """Keep a compiled model for the next start; whole, or not at all.

        Parameters
        ----------
        content
            The compiled model.

        Returns
        -------
        str
            A sentence if it could not be kept, else empty: a start without a cache is only slower.
        """
        folder = self.file.parent
        line = json.dumps({**self.made_of, "sha256": hashlib.sha256(content).hexdigest()})
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=folder)
            beside = Path(name)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(line.encode() + b"\n")
                    file.write(content)
                beside.replace(self.file)
            except BaseException:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            return f"The compiled model could not be kept ({error.strerror}), so the next start compiles again."
        return ""
