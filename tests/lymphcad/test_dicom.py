import io
import os
from fractions import Fraction

import numpy as np
import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lymphcad import dicom, dicom_header
from lymphcad.dicom import read_slice
from lymphcad.dicom_header import read_sop_instance_uid
from lymphcad.dicom_pixels import hounsfield
from lymphcad.errors import Reason, Refusal
from lymphcad.last_header import LastHeader
from lymphcad.slice import PADDING_HU


def expected_hu(dataset):
    """HU as the standard defines them, by pydicom's own pixels and floating point."""
    stored = dataset.pixel_array
    hu = np.clip(np.rint(stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)), -32767, 32767)
    if "PixelPaddingValue" in dataset:
        hu[stored == dataset.PixelPaddingValue] = PADDING_HU
    return hu.astype(np.int16)


def set_pixels(dataset, stored, bits_stored):
    """Replace the pixels; the array's type says how many bits are allocated, and the sign."""
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = stored.itemsize * 8, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW" if stored.itemsize > 1 else "OB"
    for tag in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        if tag in dataset:
            delattr(dataset, tag)
    return dataset


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm"])
def test_shipped_ct_equals_pydicom(shipped, name):
    path = shipped(name)
    dataset = pydicom.dcmread(path)
    image = read_slice(path)
    assert image.hu.dtype == np.int16
    np.testing.assert_array_equal(image.hu, expected_hu(dataset))
    assert image.spacing_mm == tuple(dataset.PixelSpacing)
    assert image.orientation == pytest.approx(dataset.ImageOrientationPatient)
    assert image.position_mm == pytest.approx(dataset.ImagePositionPatient)
    assert (image.path, image.frame, image.assumptions) == (path, None, ())
    assert image.sop_class_uid == CTImageStorage
    assert image.sop_instance_uid == dataset.SOPInstanceUID
    assert image.series_instance_uid == dataset.SeriesInstanceUID
    assert image.study_instance_uid == dataset.StudyInstanceUID
    assert image.frame_of_reference_uid == dataset.get("FrameOfReferenceUID", "")


def test_every_small_shipped_slice_equals_pydicom(shipped):
    folder = shipped("CT_small.dcm").parent / "dicomdirtests"
    paths = sorted(path for path in folder.glob("*/CT[0-9]*/*") if "CT2N" not in path.parts)
    assert len(paths) == 9
    for path in paths:
        np.testing.assert_array_equal(read_slice(path).hu, expected_hu(pydicom.dcmread(path)))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_native_syntaxes(ct, save, syntax):
    ct.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read_slice(save(ct)).hu, expected_hu(ct))


def test_big_endian(ct, save):
    hu = expected_hu(ct)
    pixels = ct.pixel_array
    dataset = pydicom.Dataset()
    dataset.file_meta = ct.file_meta
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.preamble = ct.preamble
    for element in ct:
        if not element.tag.is_private and element.keyword not in ("PixelData", "DataSetTrailingPadding"):
            dataset.add(element)
    dataset.add_new("PixelPaddingValue", "SS", int(pixels[0, 0]))
    dataset.add_new("PixelData", "OW", pixels.astype(">i2").tobytes())
    found = read_slice(save(dataset)).hu
    np.testing.assert_array_equal(found == PADDING_HU, pixels == pixels[0, 0])
    np.testing.assert_array_equal(found[pixels != pixels[0, 0]], hu[pixels != pixels[0, 0]])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_syntaxes(ct, save, syntax):
    hu = expected_hu(ct)
    ct.compress(syntax)
    np.testing.assert_array_equal(read_slice(save(ct)).hu, hu)


def test_jpeg_lossless(ct, lossless_jpeg):
    assert pydicom.dcmread(lossless_jpeg).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read_slice(lossless_jpeg).hu, expected_hu(ct))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("dtype", "bits"), [(np.int16, 16), (np.int16, 12), (np.uint16, 12), (np.uint8, 8)])
def test_jpeg_lossless_of_all_kinds(ct, save, dcmcjpeg, tmp_path, dtype, bits, predictor):
    info = np.iinfo(dtype)
    shift = info.bits - bits
    noise = np.random.default_rng(1).integers(info.min >> shift, (info.max >> shift) + 1, (33, 16))
    smooth = (ct.pixel_array[:33, :40] >> 3).clip(info.min >> shift, info.max >> shift)
    if bits == 16:
        noise[:, 1] = noise[:, 0] ^ 0x8000  # the one difference that has a symbol of its own, and no bits after it
        noise = noise.astype(np.int16)
    stored = np.hstack([noise, smooth]).astype(dtype)
    path = tmp_path / "compressed.dcm"
    dcmcjpeg("+el", "+sv", str(predictor), save(set_pixels(ct, stored, bits)), path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLossless
    np.testing.assert_array_equal(read_slice(path).hu, (stored.astype(int) - 1024).clip(-32767))


@pytest.mark.parametrize(
    ("dtype", "bits", "low", "high"),
    [
        (np.int16, 16, -32768, 32767),
        (np.uint16, 16, 0, 65535),
        (np.int16, 12, -2048, 2047),
        (np.uint16, 12, 0, 4095),
        (np.uint8, 8, 0, 255),
        (np.int8, 8, -128, 127),
        (np.int32, 20, -500_000, 500_000),
    ],
)
def test_kinds_of_pixel_equal_pydicom(ct, save, dtype, bits, low, high):
    stored = np.random.default_rng(1).integers(low, high, (17, 31), dtype, endpoint=True)
    stored[0, :2] = low, high
    dataset = set_pixels(ct, stored, bits)
    if stored.nbytes % 2:
        dataset.PixelData += b"\0"
    path = save(dataset)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, stored)
    np.testing.assert_array_equal(read_slice(path).hu, expected_hu(dataset))


def test_sign_stands_at_bits_stored(ct, save):
    stored = np.random.default_rng(1).integers(-2048, 2048, (16, 16), np.int16)
    path = save(set_pixels(ct, stored & 0x0FFF, 12))
    np.testing.assert_array_equal(read_slice(path).hu, stored - 1024)


def with_overlay_in_pixels(dataset, stored, position, group=0x6000):
    """An overlay plane in an unused bit, as the standard allowed until 2004."""
    plane = np.random.default_rng(2).random(stored.shape) < 0.3
    bit = np.uint16(1 << position)
    raw = stored.view(np.uint16)
    set_pixels(dataset, np.where(plane, raw | bit, raw & ~bit).view(stored.dtype), 12)
    dataset.add_new((group, 0x0010), "US", stored.shape[0])
    dataset.add_new((group, 0x0011), "US", stored.shape[1])
    dataset.add_new((group, 0x0040), "CS", "G")
    dataset.add_new((group, 0x0050), "SS", [1, 1])
    dataset.add_new((group, 0x0100), "US", 16)
    dataset.add_new((group, 0x0102), "US", position)
    return dataset


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("position", [12, 15])
@pytest.mark.parametrize("kind", ["unsigned", "sign at bit 11", "sign extended"])
def test_overlay_in_unused_bits(ct, save, kind, position, compressed):
    values = np.random.default_rng(1).integers(0, 4096, (16, 16), np.int16)
    stored = values.astype(np.uint16) if kind == "unsigned" else values - 2048
    with_overlay_in_pixels(ct, stored & 0x0FFF if kind == "sign at bit 11" else stored, position, 0x6004)
    if compressed:
        ct.compress(RLELossless)
    np.testing.assert_array_equal(read_slice(save(ct)).hu, stored.astype(int) - 1024)


def test_padding_value(ct, save):
    stored = np.array([[-2000, -1999], [-1001, 5]] * 8, np.int16).repeat(8, axis=1)
    set_pixels(ct, stored, 16).add_new("PixelPaddingValue", "SS", -2000)
    hu = read_slice(save(ct)).hu
    np.testing.assert_array_equal(hu == PADDING_HU, stored == -2000)
    np.testing.assert_array_equal(hu[stored != -2000], stored[stored != -2000] - 1024)


@pytest.mark.parametrize("limits", [(-2000, -1001), (-1001, -2000)])
def test_padding_range_limit(ct, save, limits):
    stored = np.array([[-2000, -1999], [-1001, -1000]] * 8, np.int16).repeat(8, axis=1)
    set_pixels(ct, stored, 16).add_new("PixelPaddingValue", "SS", limits[0])
    ct.add_new("PixelPaddingRangeLimit", "SS", limits[1])
    np.testing.assert_array_equal(read_slice(save(ct)).hu == PADDING_HU, stored <= -1001)


def test_padding_of_the_other_vr(ct, save):
    stored = np.full((16, 16), -2000, np.int16)
    set_pixels(ct, stored, 16).add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert (read_slice(save(ct)).hu == PADDING_HU).all()
    set_pixels(ct, stored.astype(np.uint16), 16).add_new("PixelPaddingValue", "SS", -2000)
    assert (read_slice(save(ct)).hu == PADDING_HU).all()


@pytest.mark.parametrize(
    ("slope", "intercept"), [("-1", "1024"), ("0.5", "-0.25"), ("-2.0", "-1024.00"), ("3", "-1e4")]
)
def test_other_rescales(ct, save, slope, intercept):
    ct.RescaleSlope, ct.RescaleIntercept = slope, intercept
    np.testing.assert_array_equal(read_slice(save(ct)).hu, expected_hu(ct))


def test_what_does_not_fit_is_clipped_but_is_not_padding(ct, save):
    stored = np.tile(np.array([0, 1, 32767, 65535], np.uint16), (16, 4))
    set_pixels(ct, stored, 16)
    ct.RescaleIntercept = -40000
    hu = read_slice(save(ct)).hu
    np.testing.assert_array_equal(hu[0, :4], [-32767, -32767, -7233, 25535])
    ct.RescaleSlope = 1000
    np.testing.assert_array_equal(read_slice(save(ct)).hu[0, :4], [-32767, -32767, 32767, 32767])


@given(
    stored=st.sampled_from([np.int16, np.uint16, np.uint8, np.int32]).flatmap(lambda kind: arrays(kind, (2, 3))),
    slope=st.one_of(st.integers(-300, 300), st.sampled_from([0.5, -0.25, 2.0**70, 1e300])).filter(bool),
    intercept=st.one_of(st.integers(-70_000, 70_000), st.sampled_from([0.25, -1024.5, 2.0**62, 1e300])),
)
@example(stored=np.zeros((2, 3), np.int16), slope=2.0**70, intercept=3)
def test_hounsfield_is_exact(stored, slope, intercept):
    before = stored.copy()
    hu = hounsfield(stored, float(slope), float(intercept), None)
    np.testing.assert_array_equal(stored, before)
    for value, found in zip(stored.flat, hu.flat, strict=True):
        exact = Fraction(int(value)) * Fraction(slope) + Fraction(intercept)
        assert found == min(max(round(exact), -32767), 32767)
    low, high = sorted(map(int, stored.flat[:2]))
    padded = hounsfield(stored, float(slope), float(intercept), (low, high))
    np.testing.assert_array_equal(padded, np.where((before >= low) & (before <= high), PADDING_HU, hu))
    frozen = stored.copy()
    frozen.flags.writeable = False
    for memory in (frozen, stored):
        found = hounsfield(memory, float(slope), float(intercept), (low, high), overwrite=True)
        np.testing.assert_array_equal(found, padded)
    np.testing.assert_array_equal(frozen, before)


@pytest.mark.parametrize("sequence_length", ["undefined", "defined"])
def test_enhanced_multi_frame(enhanced, save, sequence_length):
    for element in enhanced:
        if element.VR == "SQ":
            element.is_undefined_length = sequence_length == "undefined"
    stored = enhanced.pixel_array
    path = save(enhanced)
    for number in (0, 1):
        image = read_slice(path, frame=number + 1)
        np.testing.assert_array_equal(image.hu, stored[number] * (1 + number) - 1024 - number)
        assert image.spacing_mm == (0.5, 0.75)
        assert image.position_mm == (-1, -2, 10 + 5 * number)
        assert image.orientation == (1, 0, 0, 0, 1, 0)
        assert image.frame == number + 1
        assert image.sop_class_uid == enhanced.SOPClassUID


def test_enhanced_of_one_frame_needs_no_number(enhanced, save):
    enhanced.NumberOfFrames = 1
    enhanced.PixelData = enhanced.PixelData[: len(enhanced.PixelData) // 2]
    del enhanced.PerFrameFunctionalGroupsSequence[1]
    for frame in (None, 1):
        assert read_slice(save(enhanced), frame).frame is None


def outcome(path, frame):
    """What is read of a file, or why it is refused."""
    try:
        image = read_slice(path, frame)
    except Refusal as refusal:
        return refusal.reason, str(refusal)
    return image.hu.tobytes(), image.spacing_mm, image.position_mm, image.sop_instance_uid


@pytest.mark.parametrize("kind", ["classic", "enhanced", JPEG2000Lossless, RLELossless, "deflated"])
def test_where_the_first_read_ends_makes_no_difference(ct, enhanced, save, monkeypatch, kind):
    """Neither to what is read nor to what is refused, of whole files and of files that are cut off."""
    monkeypatch.setattr(dicom_header, "_last_header", LastHeader())
    dataset, frame = (enhanced, 2) if kind == "enhanced" else (ct, None)
    if kind == "deflated":
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    elif kind not in ("classic", "enhanced"):
        dataset.compress(kind)
    whole = save(dataset).read_bytes()
    pixels = whole.find(b"\xe0\x7f\x10\x00")  # of a deflated file, none
    ends = {140, 400, 1500, len(whole) - 100, len(whole)} | (
        {pixels + n for n in (0, 4, 8, 12, 20)} if pixels > 0 else set()
    )
    path, found = save(dataset), set()
    for length in sorted(ends):
        path.write_bytes(whole[:length])
        outcomes = []
        for head in (0, *sorted(ends)):  # with 0 the file is parsed where it lies
            monkeypatch.setattr(dicom_header, "_HEAD_BYTES", head)
            outcomes.append(outcome(path, frame))
        assert set(outcomes) == {outcomes[0]}
        found.add(outcomes[0])
    assert len(found) >= 2  # refusals and a slice


def test_a_value_that_the_first_read_cuts(ct, save, monkeypatch):
    for tag in [tag for tag in ct.keys() if tag > 0x00281054]:  # noqa: SIM118 - of a dataset, elements come otherwise
        del ct[tag]
    ct.RescaleType = "HU"  # the last element
    path = save(ct)
    monkeypatch.setattr(dicom_header, "_HEAD_BYTES", path.stat().st_size - 1)
    with dicom_header.open_dicom(path, [0x00281054]) as header:
        assert dicom_header.text(header.elements, 0x00281054) == "HU"


def test_a_file_that_is_cut_off_while_it_is_read(ct, save, monkeypatch):
    path, check = save(ct), dicom.check_pixel_data

    def check_then_cut(*arguments):
        check(*arguments)
        os.truncate(path, path.stat().st_size - 5000)

    monkeypatch.setattr(dicom, "check_pixel_data", check_then_cut)
    with pytest.raises(Refusal) as refused:
        read_slice(path)
    assert refused.value.reason is Reason.TRUNCATED


def test_only_a_header_of_usual_length_is_parsed_before_the_file(ct, save, monkeypatch):
    parsed = []
    original = dicom_header._read
    monkeypatch.setattr(dicom_header, "_read", lambda *arguments: parsed.append(arguments[0]) or original(*arguments))
    expected = read_slice(save(ct)).hu
    assert [type(stream) for stream in parsed] == [io.BytesIO]
    ct.private_block(0x0009, "LONG", create=True).add_new(1, "OB", bytes(100_000))
    np.testing.assert_array_equal(read_slice(save(ct)).hu, expected)
    assert [type(stream) for stream in parsed[1:]] == [io.BytesIO, io.BufferedReader]


@pytest.mark.parametrize("is_undefined_length", [True, False])
def test_header_of_many_frames_is_parsed_once_and_is_never_stale(enhanced, save, monkeypatch, is_undefined_length):
    for element in enhanced:
        if element.VR == "SQ":
            element.is_undefined_length = is_undefined_length
    path = save(enhanced)
    parsed = []
    original = dicom_header._read
    monkeypatch.setattr(dicom_header, "_last_header", LastHeader())
    monkeypatch.setattr(dicom_header, "_read", lambda *arguments: parsed.append(path) or original(*arguments))
    images = [read_slice(path, frame) for frame in (1, 2, 1)]
    assert len(parsed) == 1
    assert [image.position_mm for image in images] == [(-1, -2, 10), (-1, -2, 15), (-1, -2, 10)]
    np.testing.assert_array_equal(images[0].hu, images[2].hu)
    # Another file in its place, of the same size and time, as a copy may leave it.
    contents, before = path.read_bytes(), path.stat()
    assert contents.count(b"0.5\\0.75") == 1
    path.write_bytes(contents.replace(b"0.5\\0.75", b"0.6\\0.85"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_slice(path, 1).spacing_mm == (0.6, 0.85)
    last = contents.index(enhanced.PixelData) + len(enhanced.PixelData) - 2
    path.write_bytes(contents[:last] + b"\x01\x02" + contents[last + 2 :])  # the same header on other pixels
    assert read_slice(path, 2).spacing_mm == (0.5, 0.75)
    assert read_slice(path, 2).hu[-1, -1] == 0x0201 * 2 - 1025
    read_sop_instance_uid(path)  # other elements of the same file
    assert read_slice(path, 2).spacing_mm == (0.5, 0.75)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("offset_table", ["basic", "extended", "none"])
def test_only_the_frame_asked_for_is_decoded(enhanced, save, syntax, offset_table):
    hu = enhanced.pixel_array[1] * 2 - 1025
    enhanced.compress(syntax, encapsulate_ext=offset_table == "extended")
    data = bytearray(enhanced.PixelData)
    first_frame = 8 + int.from_bytes(data[4:8], "little") + 8
    if offset_table == "none":
        data[0:first_frame] = data[0:4] + bytes(4) + data[first_frame - 8 : first_frame]
        first_frame = 16
    data[first_frame : first_frame + 60] = b"\xaa" * 60
    enhanced["PixelData"].value = bytes(data)
    np.testing.assert_array_equal(read_slice(save(enhanced), frame=2).hu, hu)


def test_classic_multi_frame_has_no_position_beyond_its_first(ct, save):
    ct.NumberOfFrames = 2
    ct.PixelData *= 2
    path = save(ct)
    assert read_slice(path, frame=1).position_mm is not None
    assert read_slice(path, frame=2).position_mm is None
    np.testing.assert_array_equal(read_slice(path, frame=2).hu, read_slice(path, frame=1).hu)


def test_absent_optional_elements(ct, save):
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "FrameOfReferenceUID", "ImageType"):
        if keyword in ct:
            delattr(ct, keyword)
    image = read_slice(save(ct))
    assert (image.orientation, image.position_mm, image.frame_of_reference_uid) == (None, None, "")


def test_damaged_position_is_none(ct, save):
    ct["ImagePositionPatient"]._value = "1\\nan\\3"
    assert read_slice(save(ct)).position_mm is None


def test_deflated_file_may_end_in_a_padding_byte(ct, save):
    path = save(ct)
    ct.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated = save(ct)
    deflated.write_bytes(deflated.read_bytes() + b"\0")
    np.testing.assert_array_equal(read_slice(deflated).hu, read_slice(path).hu)


def test_explicit_elements_behind_the_pixels_are_not_read(ct, save):
    assert ct.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    path = save(ct)
    path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(read_slice(path).hu, expected_hu(ct))


def test_sop_instance_uid(shipped, save, ct):
    assert read_sop_instance_uid(shipped("CT_small.dcm")) == ct.SOPInstanceUID
    ct.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert read_sop_instance_uid(save(ct)) == ct.SOPInstanceUID
    assert read_sop_instance_uid(shipped("README.txt")) == ""
    assert read_sop_instance_uid(shipped("CT_small.dcm").parent) == ""
