"""Annotation objects that are damaged, absurd or hostile: each is refused in its own line, and the others go on."""

from __future__ import annotations

import io
import struct
import zlib

import pydicom
import pytest
from annotating import (
    annotated,
    copy_of,
    ct_series,
    graphic,
    item,
    planar,
    presentation,
    report,
    scoord,
    text_object,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from lymphcad_client.annotations.files import MAX_OBJECT_BYTES
from lymphcad_client.annotations.find import find_nodes
from lymphcad_client.annotations.structure import MAX_ITEMS
from lymphcad_client.annotations.table import write_nodes
from pydicom.filebase import DicomIO
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
)
from refusals import shipped_path

from lymphcad.errors import Reason
from lymphcad.tables import read_nodes

SECRET = "Kowalski"
ITEM = b"\xfe\xff\0\xe0"


@pytest.fixture(scope="module")
def cts():
    return ct_series(2)


@pytest.fixture(scope="module")
def good(cts):
    """Return a report and a presentation state, both with names in them."""
    person = {"PatientName": f"{SECRET}^Anna", "PatientID": SECRET}
    made = report(
        [planar(scoord("POLYLINE", [[5, 5], [9, 5], [9, 9], [5, 5]], ct), f"{SECRET} {n}") for n, ct in enumerate(cts)],
        cts,
        **person,
    )
    state = presentation([annotated(cts[:1], [graphic("POINT", [(5, 5)])], [text_object(SECRET)])], cts, **person)
    return made, state


def contents(dataset):
    """Return the bytes of a file."""
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def found_with(folder, cts, raw):
    """Return what is found in a study with a good presentation state and a file of these bytes."""
    write(folder, *cts, presentation([annotated(cts[:1], [graphic("POINT", [(5, 5)])])], cts))
    (folder / "bad.dcm").write_bytes(raw)
    found = find_nodes([folder])
    assert [node.row.image for node in found.nodes][-1:] == [cts[0].SOPInstanceUID]
    for one in found.refused:
        assert one.where.path == folder / "bad.dcm"
        sentence = str(one.refusal)
        assert SECRET not in sentence
        assert "\n" not in sentence
        assert len(sentence) > 40
    return found


def reasons(found):
    return [(one.where.number, one.refusal.reason) for one in found.refused]


def image(uid):
    """Return a content item of an image."""
    return item(ValueType="IMAGE", ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=uid)])


def at(**other):
    """Return a content item of coordinates."""
    found = item(ValueType="SCOORD", GraphicType="POINT", GraphicData=[5.0, 5.0], ContentSequence=[image("1.2.3")])
    for keyword, value in other.items():
        setattr(found, keyword, value)
    return found


def raw(sop_class, body, syntax=ExplicitVRLittleEndian):
    """Return a file with a data set of these bytes behind its SOP class and instance."""
    start = pydicom.Dataset()
    start.SOPClassUID, start.SOPInstanceUID = sop_class, "1.2.3.4"
    start.file_meta = pydicom.dataset.FileMetaDataset()
    start.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    start.save_as(file, enforce_file_format=True)
    if syntax != DeflatedExplicitVRLittleEndian:
        return file.getvalue() + body
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    plain = file.getvalue()
    data = plain.index(b"\x08\0\x16\0UI")
    head = plain[:data].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99".ljust(22, b"\0"))
    head = head.replace(
        struct.pack("<2sH", b"UI", 20) + b"1.2.840.10008.1.2.1.99", b"UI\x16\0" + b"1.2.840.10008.1.2.1.99"
    )
    return head + squeezer.compress(plain[data:] + body) + squeezer.flush()


def sequence(tag, value, *, undefined=False):
    """Return an element of VR SQ with one item (explicit VR)."""
    length = 0xFFFFFFFF if undefined else len(value)
    one = struct.pack("<HHL", 0xFFFE, 0xE000, length) + value
    if undefined:
        one += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    head = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF if undefined else len(one))
    return head + one


def nested(levels, *, undefined):
    """Return content sequences, one in the other."""
    value = b""
    for _ in range(levels):
        value = sequence(0x0040A730, value, undefined=undefined)
    return value


@pytest.mark.parametrize(
    ("number", "reason", "change"),
    [
        (1, Reason.NOT_A_POINT, [at(GraphicData=None)]),
        (1, Reason.NOT_A_POINT, [at(GraphicType="")]),
        (1, Reason.NOT_A_POINT, [at(GraphicType=SECRET)]),
        (1, Reason.UNREADABLE, [at(GraphicData=[5.0, 5.0, 5.0])]),
        (1, Reason.NODE_NOT_A_NUMBER, [at(GraphicData=[float("nan"), 5.0])]),
        (1, Reason.NODE_NOT_A_NUMBER, [at(GraphicData=[float("inf"), 5.0])]),
        (1, Reason.UNKNOWN_IMAGE, [at(GraphicData=[3e38, -3e38])]),
        (1, Reason.UNKNOWN_IMAGE, [at()]),
        (1, Reason.UNKNOWN_IMAGE, [at(ContentSequence=[])]),
        (1, Reason.UNKNOWN_IMAGE, [at(ContentSequence=[item(ValueType="IMAGE")])]),
        (1, Reason.UNKNOWN_IMAGE, [at(ContentSequence=[item(ValueType=SECRET), item()])]),
        (1, Reason.UNREADABLE, [at(ValueType="SCOORD3D")]),
        (1, Reason.OTHER_FRAME_OF_REFERENCE, [at(ValueType="SCOORD3D", GraphicData=[1.0, 2.0, 3.0])]),
        (1, Reason.AMBIGUOUS_IMAGE, [at(ContentSequence=[image("1.2.3"), image("1.2.4")])]),
    ],
)  # fmt: skip
def test_bad_items(tmp_path, cts, good, number, reason, change):
    assert reasons(found_with(tmp_path, cts, contents(copy_of(good[0], ContentSequence=change)))) == [(number, reason)]


@pytest.mark.parametrize("keyword", ["ContentSequence", "GraphicAnnotationSequence"])
def test_no_content(tmp_path, cts, good, keyword):
    made = copy_of(good[0 if keyword == "ContentSequence" else 1])
    delattr(made, keyword)
    found = found_with(tmp_path, cts, contents(made))
    assert (found.without, found.refused) == (1, [])


def test_items_with_nothing_in_them(tmp_path, cts, good):
    empty = [
        item(),
        item(ContentSequence=[item()]),
        item(ConceptNameCodeSequence=[]),
        item(ConceptNameCodeSequence=[item()]),
    ]
    found = found_with(tmp_path, cts, contents(copy_of(good[0], ContentSequence=empty)))
    assert (found.without, found.refused) == (1, [])


def test_what_should_be_a_sequence_is_text(tmp_path, cts, good):
    made = contents(good[0])
    start = made.index(struct.pack("<HH2s", 0x0040, 0xA730, b"SQ"))
    text = struct.pack("<HH2sHL", 0x0040, 0xA730, b"UT", 0, 8) + b"Kowalski"
    assert reasons(found_with(tmp_path, cts, made[:start] + text)) == [(0, Reason.UNREADABLE)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("which", [0, 1])
def test_cut_off(tmp_path, cts, good, which, share):
    made = contents(good[which])
    assert reasons(found_with(tmp_path, cts, made[: int(share * len(made))])) == [(0, Reason.TRUNCATED)]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("by", [-2, 2, 100, 100_000])
@pytest.mark.parametrize("which", range(5))
def test_a_length_that_lies(tmp_path, cts, originals, which, by, implicit):
    """Of a sequence or an item anywhere in the tree: what pydicom would read without a word, losing what follows."""
    made = bytearray(originals[2 if implicit else 0])
    starts = [n + 4 for n in range(132, len(made)) if made[n : n + 4] == ITEM]
    starts += [n + (4 if implicit else 8) for n in range(132, len(made)) if made[n : n + 4] == b"\x40\0\x30\xa7"]
    lengths = {at: length for at in starts if (length := struct.unpack_from("<L", made, at)[0])}
    assert 0xFFFFFFFF not in lengths.values()
    place, length = sorted(lengths.items())[which * len(lengths) // 5]
    struct.pack_into("<L", made, place, length + by)
    [(number, reason)] = reasons(found_with(tmp_path, cts, bytes(made)))
    assert number == 0
    assert reason is Reason.UNREADABLE or (by > 0 and reason is Reason.TRUNCATED)


@pytest.mark.parametrize("which", range(3))
def test_something_else_than_an_item(tmp_path, cts, good, which):
    made = bytearray(contents(good[0]))
    starts = [n for n in range(132, len(made)) if made[n : n + 4] == ITEM]
    struct.pack_into("<HH", made, starts[which * len(starts) // 3], 0x0040, 0xA040)
    assert reasons(found_with(tmp_path, cts, bytes(made))) == [(0, Reason.UNREADABLE)]


def test_a_sequence_whose_writer_did_not_know_it(tmp_path, cts, good):
    """A relay that does not know an element passes it on as UN, in implicit VR (PS3.5, section 6.2.2)."""
    made = contents(good[1])
    start = made.index(struct.pack("<HH2s", 0x0070, 0x0001, b"SQ"))
    file = io.BytesIO()
    pydicom.filewriter.write_dataset(DicomIO(file), good[1].group_dataset(0x0070))
    value = file.getvalue()
    (length,) = struct.unpack_from("<L", value, 4)
    assert value[:4] == b"\x70\0\1\0"
    body = struct.pack("<HH2sHL", 0x0070, 0x0001, b"UN", 0, length) + value[8 : 8 + length]
    assert len(found_with(tmp_path, cts, made[:start] + body).nodes) == 2
    lying = bytearray(body)
    struct.pack_into("<L", lying, 16, length)  # its item: as long as the whole sequence
    (tmp_path / "lying").mkdir()
    assert reasons(found_with(tmp_path / "lying", cts, made[:start] + lying)) == [(0, Reason.TRUNCATED)]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("levels", [41, 3000])
def test_nested_too_deep(tmp_path, cts, levels, undefined):
    found = found_with(tmp_path, cts, raw(ComprehensiveSRStorage, nested(levels, undefined=undefined)))
    assert reasons(found) == [(0, Reason.ABSURD_SIZE)]


@pytest.mark.parametrize("undefined", [False, True])
def test_nested_just_not_too_deep(tmp_path, cts, undefined):
    found = found_with(tmp_path, cts, raw(ComprehensiveSRStorage, nested(40, undefined=undefined)))
    assert (found.without, found.refused) == (1, [])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("sop_class", "tag", "vr"),
    [
        (ComprehensiveSRStorage, 0x0040A730, b"SQ"),
        (ComprehensiveSRStorage, 0x0040A730, b"UN"),
        (GrayscaleSoftcopyPresentationStateStorage, 0x00700001, b"SQ"),
    ],
)
def test_too_many_items(tmp_path, cts, sop_class, tag, vr, syntax):
    """Ten megabytes that would take gigabytes of memory, and deflated a few KB."""
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (MAX_ITEMS + 1)
    body = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(empty)) + empty
    made = raw(sop_class, body, syntax)
    assert syntax != DeflatedExplicitVRLittleEndian or len(made) < 10_000
    assert reasons(found_with(tmp_path, cts, made)) == [(0, Reason.ABSURD_SIZE)]


def test_too_long(tmp_path, cts):
    body = struct.pack("<HH2sHL", 0x0040, 0xA160, b"UT", 0, MAX_OBJECT_BYTES) + b" " * MAX_OBJECT_BYTES
    made = raw(ComprehensiveSRStorage, body, DeflatedExplicitVRLittleEndian)
    assert reasons(found_with(tmp_path, cts, made)) == [(0, Reason.ABSURD_SIZE)]


def test_many_items_within_the_limit(tmp_path, cts, good):
    """Two thousand groups are read, each with its own line."""
    one = at(ContentSequence=[image(cts[0].SOPInstanceUID)])
    found = found_with(tmp_path, cts, contents(copy_of(good[0], ContentSequence=Sequence([one] * 2000))))
    assert len(found.nodes) == 2001


def test_no_file_that_pydicom_ships_does_more_than_refuse():
    folder = shipped_path("CT_small.dcm").parent
    found = find_nodes([folder])
    assert found.images > 50
    assert found.nodes == []


def test_a_real_report_without_coordinates():
    found = find_nodes([shipped_path("reportsi.dcm")])
    assert (found.nodes, found.refused, found.without + found.others) == ([], [], 1)


@pytest.fixture(scope="module")
def originals(cts, good):
    implicit = pydicom.Dataset(good[0])
    implicit.file_meta = pydicom.dataset.FileMetaDataset()
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    file = io.BytesIO()
    implicit.save_as(file, enforce_file_format=True)
    return [contents(good[0]), contents(good[1]), file.getvalue(), contents(cts[1])]


@pytest.fixture(scope="module")
def arena(tmp_path_factory, cts):
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder, *cts)
    return folder


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 3),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_whatever_the_bytes(originals, arena, which, changes, keep):
    """The good part of a damaged study is a table that can be read, and what is refused has a sentence."""
    made = bytearray(originals[which])
    for place, value in changes:
        made[int(place * len(made))] = value
    (arena / "damaged.dcm").write_bytes(made[: int(keep * len(made))])
    found = find_nodes([arena], include_results=True)
    assert found.images + found.others + found.without + len(found.nodes) + len(found.refused) >= 3
    for node in found.nodes:
        assert -0.5 <= node.row.row < 127.5
        assert -0.5 <= node.row.col < 127.5
    for one in found.refused:
        assert SECRET not in str(one.refusal)
    if found.nodes:
        table = arena.parent / "nodes.csv"
        write_nodes(table, found.nodes)
        assert read_nodes(table) == found.rows
