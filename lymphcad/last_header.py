"""The parsed header of the last multi-frame file: a table can have a node on each of its hundreds of frames."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from lymphcad.functional_groups import PER_FRAME

if TYPE_CHECKING:
    from lymphcad.dicom_header import Header

_MAX_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class _Parsed:
    contents: bytes
    tags: tuple[int, ...]
    header: Any


class LastHeader:
    """Keeps one header, and gives it back for a file that has the same bytes up to its pixels.

    The functional groups of 400 frames take 0.1 s to parse, and comparing their bytes a hundredth of a millisecond.
    A name and a time stamp would not tell a file that was replaced from the one that was read.
    """

    def __init__(self) -> None:
        self._parsed: _Parsed | None = None  # replaced as a whole, so that threads may share it

    def find(self, stream: BinaryIO, size: int, tags: list[int]) -> Header | None:
        """Return the header of an open file, if it is the one that is kept.

        Parameters
        ----------
        stream
            The file; its position changes.
        size
            Its length, bytes.
        tags
            The elements that are wanted.

        Returns
        -------
        Header or None
            With `stream` as its stream.
        """
        parsed = self._parsed
        if parsed is None or parsed.header.size != size or parsed.tags != tuple(tags):
            return None
        stream.seek(0)
        if stream.read(len(parsed.contents)) != parsed.contents:
            return None
        header: Header = replace(parsed.header, stream=stream)
        return header

    def keep(self, header: Header, stream: BinaryIO, tags: list[int]) -> None:
        """Keep the header of an open file if it describes its frames one by one.

        Parameters
        ----------
        header
            As read from `stream`.
        stream
            The file. What was inflated from it is not kept.
        tags
            The elements that were wanted.
        """
        offset = header.pixel_offset
        if header.stream is not stream or offset is None or offset > _MAX_BYTES or PER_FRAME not in header.groups:
            return
        stream.seek(0)
        # Without the stream, which holds the file open or all of it in memory.
        self._parsed = _Parsed(stream.read(offset), tuple(tags), replace(header, stream=io.BytesIO()))
