"""The files in a zip that is in memory; none of them touches the disk."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.series import RefusedFile

MAX_ENTRIES = 20_000
"""Entries that a zip may have, folders among them."""
_MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_DIRECTORY_ENTRY = b"PK\x01\x02"
_DIRECTORY_END = b"PK\x05\x06"
_COUNT_IS_ELSEWHERE = 0xFFFF
"""In the directory's end: ZIP64 has the number of entries."""
_ENCRYPTED = 0x1
# What bzip2 and LZMA inflate to in one step has no limit in zipfile: 4 kB can become gigabytes.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_STEP = 64 * 1024
"""Bytes inflated between two looks at the limit; small, for those of a step that fails are not counted."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|\A/|\A[A-Za-z]:|(?:\A|/)\.\.(?:/|\Z)")
_DAMAGED = (
    zipfile.BadZipFile,  # a wrong CRC, a local header that contradicts the directory, entries that overlap
    zlib.error,
    EOFError,
    NotImplementedError,  # patched data, strong encryption, a version of the format that does not exist
    ValueError,  # an offset before the start, a name that is not text
    OverflowError,  # an offset of 2^63 and more
)


class _TooLarge(Exception):  # noqa: N818 - never leaves this module
    """More was inflated than the limit allows."""


@dataclass
class _Budget:
    left: int

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooLarge


def is_archive(data: bytes) -> bool:
    """Tell whether a file is a zip, by its first bytes; ``DICM`` after 128 bytes that are anybody's makes it DICOM."""
    return data.startswith(_MAGICS) and data[128:132] != b"DICM"


def expand_archive(file: MemoryFile, limit_bytes: int) -> tuple[list[MemoryFile], list[RefusedFile]]:
    """Read the files in a zip.

    Parameters
    ----------
    file
        A zip.
    limit_bytes
        That its files may have in all once they are inflated, whatever its directory says of their sizes.

    Returns
    -------
    list of MemoryFile, list of RefusedFile
        In the zip's order, each under its path in the zip. Folders, DICOMDIR, ``__MACOSX`` and what has a name, or a
        folder's on the way, that starts with a dot are left out, as in `lymphcad.images.list_images`; every other
        entry is in one of the two. Refused with ``unsafe_name`` is a path that leads out of the zip, with
        ``bad_archive`` an entry that is damaged, encrypted, of an unsupported compression, or a zip itself. A zip that
        is damaged as a whole, too large, or holds no file is refused as one, with ``bad_archive`` and the zip's name.
    """
    try:
        return _expand(file, _Budget(limit_bytes))
    except Refusal as refusal:
        return [], [RefusedFile(file.name, refusal)]


def _expand(file: MemoryFile, budget: _Budget) -> tuple[list[MemoryFile], list[RefusedFile]]:
    # Before the directory is parsed, which takes half a kilobyte of memory for each 46 bytes of it.
    if file.data.count(_DIRECTORY_ENTRY) > MAX_ENTRIES:
        raise _bad(f"the zip has more than {MAX_ENTRIES} entries: zip one series at a time")
    limit = budget.left
    try:
        archive = zipfile.ZipFile(io.BytesIO(file.data))
        # A directory that is damaged may hide entries, and zipfile does not count them.
        (said,) = struct.unpack_from("<H", file.data, file.data.rindex(_DIRECTORY_END) + 10)
        if said not in (len(archive.infolist()), _COUNT_IS_ELSEWHERE):
            raise zipfile.BadZipFile
    except _DAMAGED:
        raise _bad("the zip is damaged or not whole: make it again, or drop the files themselves") from None
    files: list[MemoryFile] = []
    refused: list[RefusedFile] = []
    with archive:
        for entry in archive.infolist():
            name = entry.orig_filename  # zipfile's own ends at the first NUL
            path = PurePosixPath(name)
            try:
                _check_name(name)
                if name.endswith("/") or _is_left_out(path):
                    continue
                _check_method(entry)
                files.append(MemoryFile(path.as_posix(), _inflate(archive, entry, budget)))
            except Refusal as refusal:
                refused.append(RefusedFile(name or file.name, refusal))
            except _TooLarge:
                raise _bad(
                    f"the zip inflates to more than the {limit // 1024**2} MB that are left for it: drop one series at"
                    " a time"
                ) from None
    if not files and not refused:
        raise _bad("the zip holds no image file: drop one that holds the DICOM files themselves")
    return files, refused


def _check_name(name: str) -> None:
    if not name or _UNSAFE.search(name):
        raise Refusal(
            Reason.UNSAFE_NAME,
            "the name in the zip is empty, leads out of it, or has a drive letter, a backslash or a control character:"
            " zip the folder again with relative paths and forward slashes",
        )


def _is_left_out(path: PurePosixPath) -> bool:
    hidden = any(part == "__MACOSX" or part.startswith(".") for part in path.parts)
    return hidden or path.name.upper() == "DICOMDIR"


def _check_method(entry: zipfile.ZipInfo) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise _bad("the file is encrypted in the zip: zip it without a password")
    if entry.compress_type not in _COMPRESSIONS:
        raise _bad(
            f"the file is compressed with method {entry.compress_type}, and only deflated and stored ones are read: zip"
            " it again in the ordinary way"
        )


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: _Budget) -> bytes:
    """Return an entry's bytes, whose CRC is right."""
    steps: list[bytes] = []
    try:
        with archive.open(entry) as member:
            while step := member.read(_STEP):
                budget.take(len(step))
                if not steps and is_archive(step):
                    raise _bad("the file is a zip in the zip: unpack it, and drop its files")
                steps.append(step)
    except _DAMAGED:
        raise _bad("the file is damaged in the zip: make the zip again, or drop the file itself") from None
    return b"".join(steps)


def _bad(message: str) -> Refusal:
    return Refusal(Reason.BAD_ARCHIVE, message)
