import contextlib
import logging
import os
import random
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from refusals import CHANGED, MALFORMED, shipped_path

from lymphcad.dicom import read_slice
from lymphcad.dicom_header import MAX_INFLATED_BYTES
from lymphcad.errors import Reason, Refusal
from lymphcad.slice import CtSlice


def refused(path, frame=None):
    with pytest.raises(Refusal) as error:
        read_slice(path, frame)
    return error.value


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_shipped_malformed(name):
    assert refused(shipped_path(name)).reason is MALFORMED[name]


def test_no_shipped_file_does_more_than_refuse(shipped):
    read = []
    for path in shipped("CT_small.dcm").parent.rglob("*"):
        with contextlib.suppress(Refusal):
            read.append(read_slice(path).path.name)
    assert len(read) == 12  # three slices, and nine of 16 x 16 pixels


@pytest.mark.parametrize(("reason", "change"), CHANGED)
def test_changed_header(ct, save, reason, change):
    change(ct)
    assert refused(save(ct)).reason is reason


def test_just_within_the_limits(ct, save):
    ct.PixelSpacing = [0.05, 5.0]
    ct.ImageOrientationPatient = [1, 0, 0, 0, 0.70711, 0.70711]
    assert isinstance(read_slice(save(ct)), CtSlice)


@pytest.mark.parametrize("frame", [0, 2, -1])
def test_no_such_frame_in_a_single_one(shipped, frame):
    assert refused(shipped("CT_small.dcm"), frame).reason is Reason.NO_SUCH_FRAME


@pytest.mark.parametrize("frame", [None, 0, 3])
def test_no_such_frame_among_many(enhanced, save, frame):
    assert refused(save(enhanced), frame).reason is Reason.NO_SUCH_FRAME


@pytest.mark.parametrize(
    ("reason", "where", "sequence"),
    [
        (Reason.NO_PIXEL_SPACING, "Shared", "PixelMeasuresSequence"),
        (Reason.BAD_RESCALE, "PerFrame", "PixelValueTransformationSequence"),
    ],
)
def test_enhanced_without_a_group(enhanced, save, reason, where, sequence):
    for item in enhanced[f"{where}FunctionalGroupsSequence"].value:
        delattr(item, sequence)
    assert refused(save(enhanced), 1).reason is reason


def test_enhanced_frame_that_is_a_localizer(enhanced, save):
    enhanced.SOPClassUID = LegacyConvertedEnhancedCTImageStorage
    frame_type = enhanced.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence
    enhanced.PerFrameFunctionalGroupsSequence[1].CTImageFrameTypeSequence = [pydicom.Dataset()]
    second = enhanced.PerFrameFunctionalGroupsSequence[1].CTImageFrameTypeSequence[0]
    second.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    assert frame_type[0].FrameType[2] == "VOLUME"
    path = save(enhanced)
    assert read_slice(path, 1).frame == 1
    assert refused(path, 2).reason is Reason.LOCALIZER


def test_enhanced_with_too_few_groups(enhanced, save):
    del enhanced.PerFrameFunctionalGroupsSequence[1]
    assert refused(save(enhanced), 1).reason is Reason.UNREADABLE


@pytest.mark.parametrize("syntax", [MPEG2MPML, "1.2.3.4", "1.2.840.113619.5.2"])
def test_no_decoder(ct, save, syntax):
    path = save(ct)
    # pydicom would not write such a file: the UID is replaced in its bytes, and is no longer.
    name = str(syntax).ljust(20, "\0").encode()
    contents = path.read_bytes().replace(ExplicitVRLittleEndian.encode() + b"\0", name[:20])
    if len(syntax) > 20:
        contents = contents.replace(b"UI\x14\0" + name[:20], struct.pack("<2sH", b"UI", 24) + name.ljust(24, b"\0"))
    path.write_bytes(contents)
    refusal = refused(path)
    assert refusal.reason is Reason.NO_DECODER
    assert pydicom.uid.UID(syntax).name in str(refusal)


@pytest.mark.parametrize("position", [None, 0, 13])
@pytest.mark.parametrize("compressed", [False, True])
def test_values_in_unused_bits_that_no_overlay_explains(ct, save, compressed, position):
    ct.BitsStored, ct.HighBit, ct.PixelRepresentation = 12, 11, 0
    stored = np.arange(128 * 128, dtype=np.uint16).reshape(128, 128) % 4096
    stored[5, 5] |= 1 << 12
    ct.PixelData = stored.tobytes()
    if position is not None:
        ct.add_new((0x6000, 0x0102), "US", position)
    if compressed:
        ct.compress(RLELossless)
    assert refused(save(ct)).reason is Reason.UNREADABLE


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_cut_off_compressed_pixels(ct, save, syntax):
    ct.compress(syntax)
    path = save(ct)
    contents = path.read_bytes()
    start = contents.rindex(b"\xe0\x7f\x10\x00")
    for length in range(start + 20, len(contents) - 140, 997):  # the trailing padding element follows the pixels
        path.write_bytes(contents[:length])
        assert refused(path).reason is Reason.TRUNCATED


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_code_stream_cut_off_in_a_whole_fragment(ct, save, syntax):
    ct.compress(syntax)
    frame = pydicom.encaps.get_frame(ct.PixelData, 0)
    for length in (len(frame) // 2, len(frame) - 6):
        ct.PixelData = encapsulate([frame[: length // 2 * 2]])
        assert refused(save(ct)).reason is (Reason.UNREADABLE if syntax == RLELossless else Reason.TRUNCATED)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("size", [(64, 256), (20_000, 20_000)])
def test_code_stream_of_another_size(ct, save, syntax, size):
    ct.compress(syntax)
    frame = bytearray(pydicom.encaps.get_frame(ct.PixelData, 0))
    if syntax == JPEG2000Lossless:
        at = frame.index(b"\xff\x51")
        struct.pack_into(">LL", frame, at + 6, size[1], size[0])
    else:
        at = frame.index(b"\xff\xf7")
        struct.pack_into(">HH", frame, at + 5, *size)
    ct.PixelData = encapsulate([bytes(frame)])
    started = time.process_time()
    assert refused(save(ct)).reason is Reason.ABSURD_SIZE
    assert time.process_time() - started < 0.5


def test_compressed_with_more_frames_than_fragments(ct, save):
    ct.compress(RLELossless)
    ct.NumberOfFrames = 1000
    assert refused(save(ct), 1).reason is Reason.ABSURD_SIZE


def test_compressed_pixels_that_are_not_in_fragments(ct, save):
    path = save(ct)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1))
    assert refused(path).reason is Reason.UNREADABLE


def test_fragments_in_an_uncompressed_file(ct, save):
    ct.compress(RLELossless)
    path = save(ct)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0", 1))
    assert refused(path).reason is Reason.UNREADABLE


def deflated(path, body):
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + DeflatedExplicitVRLittleEndian.encode()
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    return path


def test_deflated_bomb(tmp_path):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1024**2)
    body = b"".join(deflate.compress(zeros) for _ in range(2 * MAX_INFLATED_BYTES // len(zeros))) + deflate.flush()
    assert len(body) < 1024**2
    assert refused(deflated(tmp_path / "bomb", body)).reason is Reason.ABSURD_SIZE


def test_damaged_deflated(ct, save, tmp_path):
    ct.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ct)
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(path).reason is Reason.TRUNCATED
    assert refused(deflated(tmp_path / "a", b"\xff" * 100)).reason is Reason.UNREADABLE


def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("", "nothing", "pipe", "dangling", "a/b", "nul\0byte", "x" * 300):
        assert refused(tmp_path / name).reason is Reason.FILE_MISSING


def test_too_large_a_file(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(3 * 1024**3)  # a hole: it takes no space
    assert refused(tmp_path / "a").reason is Reason.ABSURD_SIZE


def test_empty_and_tiny_files(tmp_path):
    for contents in (b"", b"DICM", bytes(132)):
        (tmp_path / "a").write_bytes(contents)
        assert refused(tmp_path / "a").reason is Reason.NOT_DICOM
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM")
    assert refused(tmp_path / "a").reason is Reason.TRUNCATED


def test_lossless_jpeg_of_another_predictor_or_precision(lossless_jpeg):
    contents = lossless_jpeg.read_bytes()
    frame = contents.index(b"\xff\xc3")  # SOF3: marker, length, precision
    scan = contents.index(b"\xff\xda")  # SOS: marker, length, 1, component, table, predictor
    assert (contents[frame + 4], contents[scan + 7]) == (16, 1)
    for at, value in ((frame + 4, 15), (scan + 7, 2), (scan + 7, 4)):
        damaged = bytearray(contents)
        damaged[at] = value
        lossless_jpeg.write_bytes(damaged)
        assert refused(lossless_jpeg).reason is Reason.UNREADABLE


@pytest.mark.parametrize("keyword", ["Modality", "PhotometricInterpretation"])
def test_an_element_that_holds_a_name_is_not_quoted(ct, save, keyword):
    setattr(ct, keyword, "DOE SECRET")
    assert "DOE" not in str(refused(save(ct)))


def test_every_truncation_is_refused(shipped, tmp_path):
    contents = shipped("CT_small.dcm").read_bytes()
    end = contents.rindex(b"\xe0\x7f\x10\x00") + 12 + 2 * 128 * 128
    path = tmp_path / "a"
    dice = random.Random(1)
    for length in sorted({*range(0, 600, 7), *(dice.randrange(end) for _ in range(200)), end - 1}):
        path.write_bytes(contents[:length])
        assert refused(path).reason in (Reason.NOT_DICOM, Reason.TRUNCATED, Reason.NOT_CT, Reason.NO_PIXELS)
    pixels = contents.rindex(b"\xe0\x7f\x10\x00")
    for length in (pixels - 1, pixels + 1, pixels + 7, pixels + 8, pixels + 11, pixels + 12, end - 1):
        path.write_bytes(contents[:length])
        assert refused(path).reason is Reason.TRUNCATED
    path.write_bytes(contents[:pixels])  # exactly between two elements
    assert refused(path).reason is Reason.NO_PIXELS
    path.write_bytes(contents[:end])
    assert isinstance(read_slice(path), CtSlice)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless, "JPEG lossless", "enhanced"])
def test_flipped_bytes_never_do_more_than_refuse(request, ct, save, capfd, syntax):
    if syntax == "enhanced":
        path = save(request.getfixturevalue("enhanced"))
    elif syntax == "JPEG lossless":
        path = request.getfixturevalue("lossless_jpeg")
    else:
        if syntax is not None:
            ct.compress(syntax)
        path = save(ct)
    contents = path.read_bytes()
    pixels = contents.rindex(b"\xe0\x7f\x10\x00")
    dice = random.Random(2)
    started = time.process_time()
    outcomes = set()
    for number in range(150):
        damaged = bytearray(contents)
        # In turn: the header, where the fragments and the code stream start, and all of the pixels.
        low, high = ((pixels, min(pixels + 200, len(contents))), (132, pixels), (pixels, len(contents)))[number % 3]
        for _ in range(dice.choice([1, 3, 10])):
            damaged[dice.randrange(low, high)] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            read_slice(path, 1)
            outcomes.add("read")
        except Refusal as refusal:
            outcomes.add(refusal.reason.value)
    assert len(outcomes) >= 2
    assert time.process_time() - started < 10
    assert capfd.readouterr() == ("", "")


PRIVATE = "Doe^Secret"


def test_no_text_of_the_file_in_messages_or_logs(ct, save, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    for keyword in ("PatientName", "PatientID", "ImageComments", "SeriesDescription", "StudyID"):
        setattr(ct, keyword, PRIVATE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for keyword in ("PixelSpacing", "RescaleSlope", "RescaleType", "ImageOrientationPatient", "NumberOfFrames"):
            damaged = ct.copy()
            damaged.add_new(keyword, "LO", PRIVATE)
            assert PRIVATE not in str(refused(save(damaged)))

        # Anything that pydicom throws may quote an element: only its type is told.
        def fail(*_, **__):
            raise ValueError(PRIVATE)

        monkeypatch.setattr("lymphcad.dicom_header.read_dataset", fail)
        refusal = refused(save(ct))
    assert refusal.reason is Reason.UNREADABLE
    assert PRIVATE not in str(refusal)
    assert "ValueError" in str(refusal)
    assert refusal.__cause__ is None
    assert refusal.__suppress_context__
    assert not caught
    assert not caplog.records


def test_pydicom_is_silent_in_the_reader(ct, save):
    ct.add_new("StudyDate", "DA", "Doe^Secret")
    path = save(ct)
    program = (
        "import logging, pathlib, sys; logging.basicConfig(level=1);"
        "from lymphcad.dicom import read_slice; read_slice(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    # The decoders announce themselves when they are imported; of the file there is no word.
    assert done.stdout == ""
    assert "pydicom" not in done.stderr
    assert "Secret" not in done.stderr
