"""A file in memory is read where it lies: its bytes are the largest thing that a session holds."""

from __future__ import annotations

import copy
import io
import tracemalloc

import pytest

from lymphcad.dicom import read_slice
from lymphcad.dicom_header import open_file
from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.series import list_series

MB = 1024**2


@pytest.fixture
def large(enhanced):
    """Return an enhanced CT of two frames, 32 MB."""
    changed = copy.deepcopy(enhanced)
    changed.Rows = changed.Columns = 2896
    changed.PixelData = bytes(2 * 2 * 2896 * 2896)
    stream = io.BytesIO()
    changed.save_as(stream, enforce_file_format=True)
    return MemoryFile("large.dcm", stream.getvalue())


def test_listing_copies_no_file(large):
    tracemalloc.start()
    try:
        assert len(list_series([large]).series[0].images) == 2
        assert tracemalloc.get_traced_memory()[1] < MB < len(large.data)
    finally:
        tracemalloc.stop()


def test_reading_a_frame_leaves_nothing_behind_but_the_frame(large):
    read_slice(large, 1)  # imports decoders, parses the header that is kept
    tracemalloc.start()
    try:
        ct = read_slice(large, 2)
        assert tracemalloc.get_traced_memory()[0] < ct.hu.nbytes + MB
    finally:
        tracemalloc.stop()


def test_a_file_in_memory_has_the_limits_of_one_on_disk(monkeypatch):
    monkeypatch.setattr("lymphcad.dicom_header.MAX_FILE_BYTES", 3)
    with open_file(MemoryFile("a", b"abc")) as (stream, size):
        assert (stream.read(), size) == (b"abc", 3)
    with pytest.raises(Refusal) as refused, open_file(MemoryFile("a", b"abcd")):
        pass
    assert refused.value.reason is Reason.ABSURD_SIZE


def test_files_of_the_same_bytes_are_two_files_with_a_header_each():
    one, other = MemoryFile("a", b"x"), MemoryFile("a", b"x")
    assert one != other
    assert one.headers is not other.headers
