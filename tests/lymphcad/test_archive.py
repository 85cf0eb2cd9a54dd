"""Zips in memory: what is in them comes out or is refused with a reason, and no zip does harm."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lymphcad import archive
from lymphcad.archive import expand_archive, is_archive
from lymphcad.errors import Reason
from lymphcad.images import list_images
from lymphcad.memory_file import MemoryFile
from lymphcad.series import list_series

MB = 1024**2
DEFLATED = zipfile.ZIP_DEFLATED


def zipped(entries, method=DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as out:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            out.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, data)
    return stream.getvalue()


def expand(data: bytes, limit: int = 16 * MB):
    files, refused = expand_archive(MemoryFile("study.zip", data), limit)
    return {file.name: file.data for file in files}, {one.name: one.refusal for one in refused}


def only_refusal(data: bytes, limit: int = 16 * MB):
    files, refused = expand(data, limit)
    assert not files
    assert list(refused) == ["study.zip"]
    assert refused["study.zip"].reason is Reason.BAD_ARCHIVE
    return str(refused["study.zip"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, DEFLATED])
def test_the_files_come_out_with_their_paths(shipped, method):
    data = shipped("CT_small.dcm").read_bytes()
    archived = zipped([("a/", b""), ("a/b/CT.dcm", data), ("Ärzte/notes.txt", b"hello"), ("./c.dcm", b"x")], method)
    files, refused = expand(archived)
    assert files == {"a/b/CT.dcm": data, "Ärzte/notes.txt": b"hello", "c.dcm": b"x"}
    assert not refused
    listing = list_series(expand_archive(MemoryFile("study.zip", archived), MB)[0])
    assert [len(series.images) for series in listing.series] == [1]
    assert {one.name for one in listing.refused} == {"Ärzte/notes.txt", "c.dcm"}


def test_what_is_left_out_is_what_a_folder_leaves_out(tmp_path):
    names = (
        "1.dcm",
        "DICOMDIR",
        "a/dicomdir",
        "a/.DS_Store",
        ".git/2.dcm",
        "a/b/3.dcm",
        "a/..b/4.dcm",
        "DICOMDIR/5.dcm",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / name).is_dir() and name != "DICOMDIR":
            (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"x")
    on_disk = {path.relative_to(tmp_path).as_posix() for path in list_images([tmp_path])}
    files, refused = expand(zipped([*((name, b"x") for name in names), ("__MACOSX/a/1.dcm", b"x")]))
    assert set(files) == on_disk == {"1.dcm", "a/b/3.dcm", "DICOMDIR/5.dcm"}
    assert not refused


def test_magic():
    assert is_archive(zipped({"a": b"x"}))
    assert is_archive(zipped({}))
    assert not is_archive(b"")
    assert not is_archive(b"PK")
    assert not is_archive(b"\0" * 128 + b"DICM")
    # DICOM leaves the first 128 bytes to anybody.
    assert not is_archive(b"PK\x03\x04".ljust(128, b"\0") + b"DICM")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a.dcm", "a/../../b.dcm", "a/..", "..", "../.hidden", "C:/a.dcm", "c:a.dcm", "a\\b.dcm", "..\\a",
     "a\0.dcm", "a/\0../b", "a\nb.dcm"],
)  # fmt: skip
def test_a_name_that_leads_out_is_refused_and_the_rest_is_read(name):
    # zipfile writes no such names, so the bytes of a harmless one of the same length are replaced.
    harmless = "n" * len(name)
    data = zipped({harmless: b"bad", "good.dcm": b"good"}).replace(harmless.encode(), name.encode())
    files, refused = expand(data)
    assert files == {"good.dcm": b"good"}
    assert {found: refusal.reason for found, refusal in refused.items()} == {name: Reason.UNSAFE_NAME}


def test_names_that_only_look_odd_are_read():
    names = ["a..b/c.dcm", "a/b..", "AB:c", "~/x", "%2e%2e/x", "a b.dcm"]
    assert set(expand(zipped(dict.fromkeys(names, b"x")))[0]) == set(names)


def test_a_name_without_a_letter_is_refused():
    data = bytearray(zipped({"good.dcm": b"good", "n": b""}))
    at = data.rindex(b"PK\x01\x02")
    assert data[at + 46 : at + 47] == b"n"
    data[at + 28 : at + 30] = struct.pack("<H", 0)  # the length of its name
    data[at + 30 : at + 32] = struct.pack("<H", 0)
    del data[at + 46]
    end = data.rindex(b"PK\x05\x06")
    size = struct.unpack_from("<L", data, end + 12)[0]
    struct.pack_into("<L", data, end + 12, size - 1)
    files, refused = expand(bytes(data))
    assert files == {"good.dcm": b"good"}
    assert [refusal.reason for refusal in refused.values()] == [Reason.UNSAFE_NAME]


def entry_refused(data: bytes, words: str) -> None:
    files, refused = expand(data)
    assert files == {"good.dcm": b"good"}
    assert list(refused) == ["bad.dcm"]
    assert refused["bad.dcm"].reason is Reason.BAD_ARCHIVE
    assert words in str(refused["bad.dcm"])


def both(bad: bytes = b"0123456789", method=DEFLATED) -> bytes:
    return zipped({"bad.dcm": bad, "good.dcm": b"good"}, method)


def test_an_encrypted_entry_is_refused():
    data = bytearray(both())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 8, 1)
    struct.pack_into("<H", data, 6, 1)
    entry_refused(bytes(data), "password")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 97])
def test_an_unsupported_compression_is_refused(method):
    data = bytearray(both())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, method)
    entry_refused(bytes(data), f"method {method}")


def test_a_wrong_crc_is_refused():
    data = bytearray(both(method=zipfile.ZIP_STORED))
    data[data.index(b"0123456789")] ^= 1
    entry_refused(bytes(data), "damaged")


def test_a_damaged_deflate_stream_is_refused():
    noise = bytes(range(256)) * 8
    data = bytearray(both(noise))
    data[60:80] = b"\xff" * 20
    entry_refused(bytes(data), "damaged")


def test_a_local_header_in_the_last_bytes_is_refused():
    data = bytearray(both())
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 42, len(data) - 10)
    entry_refused(bytes(data), "damaged")


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1, 2**40])
def test_a_local_header_beyond_all_bounds_is_refused(offset):
    data = bytearray(both())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<L", data, at + 42, 2**32 - 1)  # ZIP64 has it
    struct.pack_into("<H", data, at + 30, 12)
    extra = struct.pack("<HHQ", 1, 8, offset)
    data[at + 46 + len("bad.dcm") : at + 46 + len("bad.dcm")] = extra
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<L", data, end + 12, struct.unpack_from("<L", data, end + 12)[0] + len(extra))
    entry_refused(bytes(data), "damaged")


@pytest.mark.parametrize("inner", [{"a.dcm": b"x" * 100}, {}])
def test_a_zip_in_a_zip_is_refused(inner):
    entry_refused(both(zipped(inner)), "zip in the zip")


def test_a_zip_that_inflates_beyond_the_limit_is_refused_as_a_whole():
    data = zipped({"small.dcm": b"x", "big.dcm": bytes(8 * MB)})
    assert len(data) < 10_000
    assert "7 MB" in only_refusal(data, 7 * MB)
    only_refusal(data, 8 * MB)  # by one byte
    assert len(expand(data, 8 * MB + 1)[0]) == 2
    only_refusal(data, 0)
    only_refusal(data, -5)


def test_many_files_share_the_limit():
    data = zipped([(f"{number}.dcm", bytes(MB)) for number in range(5)])
    only_refusal(data, 5 * MB - 1)
    assert len(expand(data, 5 * MB)[0]) == 5


def bomb(size: int, says: int) -> bytes:
    """Return a zip whose deflated entry has `size` zeros, and whose headers say that it has `says`."""
    data = bytearray(zipped({"a.dcm": bytes(size)}))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, says)
    struct.pack_into("<L", data, 22, says)
    return bytes(data)


def test_a_directory_that_understates_gains_nothing():
    files, refused = expand(bomb(64 * MB, 10), MB)  # no more is inflated than is said, and its CRC is wrong
    assert not files
    assert "damaged" in str(refused["a.dcm"])


def test_a_directory_that_overstates_is_not_believed():
    assert expand(bomb(1000, 2**32 - 2), 1000)[0] == {"a.dcm": bytes(1000)}


def test_no_more_memory_is_taken_than_the_limit_allows():
    data = zipped({"a.dcm": bytes(256 * MB)})
    tracemalloc.start()
    try:
        only_refusal(data, 4 * MB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()


def test_damaged_entries_count_too():
    entries = [(f"{number}.dcm", bytes(MB)) for number in range(6)]
    data = bytearray(zipped(entries))
    at = -1
    for _ in entries:
        at = data.index(b"PK\x01\x02", at + 1)
        struct.pack_into("<L", data, at + 16, 1)  # the CRC
    assert len(expand(bytes(data), 6 * MB)[1]) == 6
    only_refusal(bytes(data), 5 * MB)


def test_entries_that_overlap_are_refused_or_counted():
    # Two hundred directory entries that all point at the one local header of a megabyte.
    single = zipped({"a.dcm": bytes(MB)})
    start, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    entry, count = single[start:end], 200
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, start, 0)
    only_refusal(single[:start] + entry * count + tail, 10 * MB)


def test_too_many_entries_are_refused_before_the_directory_is_parsed(monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    assert len(expand(zipped([(f"{n}", b"") for n in range(3)]))[0]) == 3
    data = zipped([(f"{n}", b"") for n in range(4)])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "more than 3 entries" in only_refusal(data)


def test_twenty_thousand_entries_are_read():
    files, refused = expand(zipped([(f"{n}", b"") for n in range(archive.MAX_ENTRIES)], zipfile.ZIP_STORED))
    assert len(files) == 20_000
    assert not refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped({}), "no image file"),
        (zipped({"DICOMDIR": b"x", "a/": b"", ".x": b"y"}), "no image file"),
        (zipped({"a.dcm": b"x" * 500})[:-30], "damaged or not whole"),
        (b"PK\x03\x04", "damaged or not whole"),
        (b"PK\x05\x06" + b"\xff" * 18, "damaged or not whole"),
    ],
    ids=["empty", "no images", "cut off", "a beginning", "an end"],
)
def test_a_zip_without_anything_is_refused_as_one(data, words):
    assert words in only_refusal(data)


def test_a_name_that_is_not_text_is_refused():
    data = zipped({"ä.dcm": b"x"}).replace("ä".encode(), b"\xff\xff")
    assert "damaged" in only_refusal(data)


INSIDE = {"a/b.dcm": zlib.compress(bytes(range(256))), "c.dcm": bytes(3000), "d": b"stored"}
SMALL = zipped(INSIDE)
BYTE = st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255))


def with_bytes(*changes: tuple[int, int]) -> MemoryFile:
    data = bytearray(SMALL)
    for at, value in changes:
        data[at] = value
    return MemoryFile("study.zip", bytes(data))


@given(BYTE)
@settings(max_examples=1500, deadline=None)
def test_one_wrong_byte_never_raises_and_never_changes_a_file(change):
    files, refused = expand_archive(with_bytes(change), MB)
    assert {file.data for file in files} <= set(INSIDE.values())
    # A name has no CRC: at worst it now says that it is a folder's or hidden.
    assert len(files) + len(refused) >= 2 or [one.name for one in refused] == ["study.zip"]


@given(st.lists(BYTE, min_size=2, max_size=6))
@settings(max_examples=500, deadline=None)
def test_several_wrong_bytes_never_raise(changes):
    files, refused = expand_archive(with_bytes(*changes), MB)
    assert files or refused


def test_a_directory_that_hides_entries_is_refused():
    data = bytearray(SMALL)
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 32, 100)  # a comment that swallows what follows
    assert "damaged or not whole" in only_refusal(bytes(data))


@given(st.integers(0, len(SMALL)))
@settings(deadline=None)
def test_a_zip_that_was_cut_off_never_raises(length):
    files, refused = expand_archive(MemoryFile("study.zip", SMALL[:length]), MB)
    assert files or refused
