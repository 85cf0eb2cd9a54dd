import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lymphcad.errors import Reason, Refusal
from lymphcad.greyscale import read_greyscale

BUNDLE = {"window_level_hu": 50.0, "window_width_hu": 350.0, "field_of_view_mm": 60.0}


def grey(rows=32, cols=40):
    return (np.arange(rows * cols) % 256).astype(np.uint8).reshape(rows, cols)


def encode(image, kind="PNG", **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def read(tmp_path, contents, **options):
    path = tmp_path / "image"
    path.write_bytes(contents)
    return read_greyscale(path, **{**BUNDLE, **options})


def refused(tmp_path, contents, **options):
    with pytest.raises(Refusal) as error:
        read(tmp_path, contents, **options)
    return error.value.reason


def png_header(width, height, depth=8, kind=0):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_grey_values_become_hounsfield_units(tmp_path):
    image = read(tmp_path, encode(grey()))
    assert image.hu.dtype == np.int16
    assert image.hu.shape == (32, 40)
    np.testing.assert_array_equal(image.hu, np.rint(-125 + grey() / 255 * 350))
    assert (image.hu.min(), image.hu.max()) == (-125, 225)
    assert image.frame is None
    assert image.sop_instance_uid == ""


def test_spacing_is_assumed_from_the_shorter_side(tmp_path):
    for pixels in (grey(32, 40), grey(40, 32)):
        image = read(tmp_path, encode(pixels))
        assert image.spacing_mm == (60 / 32, 60 / 32)
        assert len(image.assumptions) == 2
        assert "60 mm" in image.assumptions[1]


def test_given_spacing_is_no_assumption(tmp_path):
    image = read(tmp_path, encode(grey()), spacing_mm=0.5)
    assert image.spacing_mm == (0.5, 0.5)
    assert len(image.assumptions) == 1
    assert "-125 to 225 HU" in image.assumptions[0]


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_spacing(tmp_path, spacing_mm):
    assert refused(tmp_path, encode(grey()), spacing_mm=spacing_mm) is Reason.BAD_PIXEL_SPACING


def test_equal_channels_are_grey(tmp_path):
    expected = read(tmp_path, encode(grey())).hu
    np.testing.assert_array_equal(read(tmp_path, encode(np.stack([grey()] * 3, axis=-1))).hu, expected)


def test_jpeg(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    expected = read(tmp_path, encode(smooth)).hu
    for pixels in (smooth, np.stack([smooth] * 3, axis=-1)):
        assert np.abs(read(tmp_path, encode(pixels, "JPEG", quality=95)).hu - expected).max() < 20


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour(tmp_path, channel):
    pixels = np.stack([grey()] * 3, axis=-1)
    pixels[5, 6, channel] ^= 1
    assert refused(tmp_path, encode(pixels)) is Reason.COLOUR


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "I;16"])
def test_other_kinds_of_png(tmp_path, mode):
    image = Image.fromarray(grey().astype(np.uint16)) if mode == "I;16" else Image.fromarray(grey()).convert(mode)
    assert refused(tmp_path, encode(image)) is Reason.UNREADABLE


def test_other_kinds_of_file(tmp_path):
    assert refused(tmp_path, encode(Image.new("CMYK", (32, 32)), "JPEG")) is Reason.UNREADABLE
    assert refused(tmp_path, encode(grey(), transparency=3)) is Reason.UNREADABLE
    assert refused(tmp_path, png_header(32, 32, depth=16, kind=2)) is Reason.UNREADABLE
    assert refused(tmp_path, encode(grey(), "BMP")) is Reason.UNREADABLE
    frames = [Image.fromarray(grey()), Image.fromarray(255 - grey())]
    animated = encode(frames[0], save_all=True, append_images=frames[1:])
    assert refused(tmp_path, animated) is Reason.UNREADABLE


def test_rotation_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG"):
        assert refused(tmp_path, encode(grey(), kind, exif=exif)) is Reason.UNREADABLE


@pytest.mark.parametrize("size", [(15, 32), (32, 15), (4097, 32), (32, 4097), (0, 0), (60_000, 60_000)])
def test_absurd_size(tmp_path, size):
    assert refused(tmp_path, png_header(*size)) is Reason.ABSURD_SIZE


def test_absurd_jpeg(tmp_path):
    assert refused(tmp_path, encode(Image.new("L", (15, 32)), "JPEG")) is Reason.ABSURD_SIZE
    small = encode(grey(), "JPEG")
    at = small.index(b"\xff\xc0") + 5
    bomb = small[:at] + struct.pack(">HH", 65_000, 65_000) + small[at + 4 :]
    assert refused(tmp_path, bomb) is Reason.ABSURD_SIZE


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated(tmp_path, kind, part):
    contents = encode(np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8), kind)
    assert refused(tmp_path, contents[: int(part * len(contents))]) is Reason.TRUNCATED


def test_damaged_files_are_refused_and_nothing_else(tmp_path):
    random = np.random.default_rng(2)
    for kind in ("PNG", "JPEG"):
        good = encode(random.integers(0, 256, (24, 24), np.uint8), kind)
        for _ in range(100):
            bad = bytearray(good)
            for at in random.integers(0, len(bad), 4):
                bad[at] = random.integers(0, 256)
            with contextlib.suppress(Refusal):
                read(tmp_path, bytes(bad))


def test_missing_file(tmp_path):
    with pytest.raises(Refusal) as error:
        read_greyscale(tmp_path / "none.png", **BUNDLE)
    assert error.value.reason is Reason.FILE_MISSING
