"""Every bad input that a user can send, with the reason code that its row must get: one table for every scorer."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from lymphcad.errors import Reason

GOOD = "good.dcm"
"""A real slice of 128 x 128 pixels; its node at `AT` is scored."""
AT = ("60", "70")


def shipped_path(name: str) -> Path:
    """Return a file that pydicom ships; nothing is downloaded."""
    slice_path = get_testdata_file("CT_small.dcm", download=False)
    assert slice_path is not None, "pydicom no longer ships CT_small.dcm"
    (path,) = (path for path in Path(slice_path).parent.rglob(name) if path.parent.name != "dicomdirtests")
    return path


def changed(**elements: object) -> Callable[[Dataset], None]:
    """Return a function that sets elements of a dataset, and deletes those that are None."""

    def change(dataset: Dataset) -> None:
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, str) and keyword not in ("Modality", "PhotometricInterpretation"):
                dataset.add_new(keyword, "LO", value)  # text only: the reader looks at the bytes
            else:
                setattr(dataset, keyword, value)

    return change


SAGITTAL = [0, 1, 0, 0, 0, -1]
AT_46_DEGREES = [1, 0, 0, 0, float(np.cos(np.radians(46))), float(np.sin(np.radians(46)))]
MALFORMED = {
    "MR_truncated.dcm": Reason.NOT_CT,
    "MR_small.dcm": Reason.NOT_CT,
    "badVR.dcm": Reason.NOT_CT,
    "rtplan.dcm": Reason.NOT_CT,
    "UN_sequence.dcm": Reason.NOT_CT,
    "rtplan_truncated.dcm": Reason.TRUNCATED,
    "no_meta.dcm": Reason.NOT_DICOM,
    "README.txt": Reason.NOT_DICOM,
    "meta_missing_tsyntax.dcm": Reason.UNREADABLE,
    "IM000000": Reason.NO_PIXELS,
    "6293": Reason.LOCALIZER,
}
CHANGED = [
    (Reason.NOT_CT, changed(SOPClassUID=ComputedRadiographyImageStorage)),
    (Reason.NOT_CT, changed(SOPClassUID=None)),
    (Reason.NOT_CT, changed(Modality="PT")),
    (Reason.NOT_CT, changed(Modality=None)),
    (Reason.LOCALIZER, changed(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    (Reason.MONOCHROME1, changed(PhotometricInterpretation="MONOCHROME1")),
    (Reason.COLOUR, changed(PhotometricInterpretation="PALETTE COLOR")),
    (Reason.COLOUR, changed(PhotometricInterpretation=None)),
    (Reason.COLOUR, changed(SamplesPerPixel=3)),
    (Reason.COLOUR, changed(SamplesPerPixel=None)),
    (Reason.NO_PIXELS, changed(PixelData=None)),
    (Reason.ABSURD_SIZE, changed(Rows=65535, Columns=65535)),
    (Reason.ABSURD_SIZE, changed(Rows=4097)),
    (Reason.ABSURD_SIZE, changed(Columns=15)),
    (Reason.ABSURD_SIZE, changed(Rows=0)),
    (Reason.ABSURD_SIZE, changed(Columns=None)),
    (Reason.ABSURD_SIZE, changed(NumberOfFrames=2)),
    (Reason.ABSURD_SIZE, changed(NumberOfFrames=2**31 - 1)),
    (Reason.ABSURD_SIZE, changed(NumberOfFrames=0)),
    (Reason.ABSURD_SIZE, changed(NumberOfFrames="1e300")),
    (Reason.ABSURD_SIZE, changed(NumberOfFrames="many")),
    (Reason.NO_PIXEL_SPACING, changed(PixelSpacing=None)),
    (Reason.NO_PIXEL_SPACING, changed(PixelSpacing="")),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing=[0.5])),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing=[0.5, 0])),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing=[0.5, -0.5])),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing=[0.04, 0.04])),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing=[5.1, 5.1])),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing="nan\\nan")),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing="inf\\inf")),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing="0,5\\0,5")),
    (Reason.BAD_PIXEL_SPACING, changed(PixelSpacing="0_1\\0_1")),
    (Reason.BAD_RESCALE, changed(RescaleSlope=None)),
    (Reason.BAD_RESCALE, changed(RescaleIntercept=None)),
    (Reason.BAD_RESCALE, changed(RescaleSlope=0)),
    (Reason.BAD_RESCALE, changed(RescaleSlope="nan")),
    (Reason.BAD_RESCALE, changed(RescaleIntercept="inf")),
    (Reason.BAD_RESCALE, changed(RescaleSlope="1\\2")),
    (Reason.BAD_RESCALE, changed(RescaleType="US")),
    (Reason.BAD_RESCALE, changed(ModalityLUTSequence=[])),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient=SAGITTAL)),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient=AT_46_DEGREES)),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient=[1, 0, 0, 0, 1])),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient=[2, 0, 0, 0, 2, 0])),
    (Reason.NOT_AXIAL, changed(ImageOrientationPatient="1\\0\\0\\0\\nan\\0")),
    (Reason.UNREADABLE, changed(BitsAllocated=12)),
    (Reason.UNREADABLE, changed(BitsStored=17)),
    (Reason.UNREADABLE, changed(BitsStored=None)),
    (Reason.UNREADABLE, changed(HighBit=11)),
    (Reason.UNREADABLE, changed(PixelRepresentation=2)),
    (Reason.UNREADABLE, changed(BitsStored=8, HighBit=7)),  # the values need more
    (Reason.TRUNCATED, changed(Rows=129)),
    (Reason.TRUNCATED, changed(PixelData=b"\0\0")),
]
"""What is changed in the real slice."""


@dataclass(frozen=True)
class BadInput:
    """One row of the table of nodes that must be refused."""

    name: str
    reason: Reason
    image: str = GOOD
    row: str = AT[0]
    col: str = AT[1]
    frame: str = ""
    spacing_mm: str = ""
    more: str = ""
    make: Callable[[Path], object] = lambda _: None
    """Writes the image."""


def _changed(change: Callable[[Dataset], None]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        dataset = pydicom.dcmread(shipped_path("CT_small.dcm"))
        change(dataset)
        dataset.save_as(path)

    return make


def _bytes_changed(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(shipped_path("CT_small.dcm").read_bytes()))


def _picture(mode: str, kind: str = "PNG", keep: float = 1.0) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
        out = io.BytesIO()
        (Image.fromarray(noise) if mode == "RGB" else Image.fromarray(noise[..., 0]).convert(mode)).save(out, kind)
        path.write_bytes(out.getvalue()[: int(keep * len(out.getvalue()))])

    return make


def _padded(dataset: Dataset) -> None:
    """Make the value under the node the one that means padding."""
    dataset.add_new("PixelPaddingValue", "SS", int(dataset.pixel_array[int(AT[0]), int(AT[1])]))


SLICE_UID = str(pydicom.dcmread(shipped_path("CT_small.dcm"), stop_before_pixels=True).SOPInstanceUID)
BAD_INPUTS = [
    *(
        BadInput(f"shipped {name}", reason, name, make=lambda path, name=name: shutil.copy(shipped_path(name), path))
        for name, reason in MALFORMED.items()
    ),
    *(
        BadInput(f"{reason.value} {number}", reason, f"changed{number}.dcm", make=_changed(change))
        for number, (reason, change) in enumerate(CHANGED)
    ),
    BadInput("empty", Reason.NOT_DICOM, "empty.dcm", make=lambda path: path.touch()),
    BadInput("text", Reason.NOT_DICOM, "text.dcm", make=lambda path: path.write_text("no image at all\n" * 99)),
    BadInput("cut in the header", Reason.TRUNCATED, "cut1.dcm", make=_bytes_changed(lambda old: old[:700])),
    BadInput("cut in the pixels", Reason.TRUNCATED, "cut2.dcm", make=_bytes_changed(lambda old: old[:20_000])),
    BadInput(
        "a video's transfer syntax",
        Reason.NO_DECODER,
        "video.dcm",
        make=_bytes_changed(lambda old: old.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0", 1)),
    ),
    BadInput("colour picture", Reason.COLOUR, "colour.png", make=_picture("RGB")),
    BadInput("transparent picture", Reason.UNREADABLE, "alpha.png", make=_picture("LA")),
    BadInput("cut picture", Reason.TRUNCATED, "cut.png", make=_picture("L", keep=0.6)),
    BadInput("cut JPEG", Reason.TRUNCATED, "cut.jpg", make=_picture("L", "JPEG", keep=0.6)),
    BadInput("never there", Reason.FILE_MISSING, "gone.dcm"),
    BadInput("vanished", Reason.FILE_MISSING, "link.dcm", make=lambda path: path.symlink_to("vanished.dcm")),
    BadInput("a folder", Reason.FILE_MISSING, "folder", make=lambda path: path.mkdir()),
    BadInput("unknown UID", Reason.UNKNOWN_IMAGE, "1.2.3.4"),
    BadInput("UID of many files", Reason.AMBIGUOUS_IMAGE, SLICE_UID),
    BadInput("in the padding", Reason.NODE_IN_PADDING, "padded.dcm", make=_changed(_padded)),
    BadInput("below", Reason.NODE_OUTSIDE_IMAGE, row="128"),
    BadInput("right", Reason.NODE_OUTSIDE_IMAGE, col="127.5"),
    BadInput("above", Reason.NODE_OUTSIDE_IMAGE, row="-0.51"),
    BadInput("far away", Reason.NODE_OUTSIDE_IMAGE, col="1e300"),
    BadInput("no number", Reason.NODE_NOT_A_NUMBER, row="here"),
    BadInput("nothing", Reason.NODE_NOT_A_NUMBER, col=""),
    BadInput("not a number", Reason.NODE_NOT_A_NUMBER, row="nan"),
    BadInput("infinite", Reason.NODE_NOT_A_NUMBER, col="-inf"),
    BadInput("second frame of one", Reason.NO_SUCH_FRAME, frame="2"),
    BadInput("frame 0", Reason.BAD_ROW, frame="0"),
    BadInput("negative spacing", Reason.BAD_ROW, spacing_mm="-1"),
    BadInput("no image", Reason.BAD_ROW, image=""),
    BadInput("a field too many", Reason.BAD_ROW, more="7"),
]
BAD_TABLES = [
    ("no column col", b"image,row\ngood.dcm,1\n", "lacks the column col"),
    ("no header", b"good.dcm,60,70\n", "lacks the columns image, row, col"),
    ("semicolons", b"image;row;col\ngood.dcm;60;70\n", "separate the columns with commas"),
    ("no rows", b"image,row,col\n", "no rows"),
    ("empty", b"", "empty"),
    ("a spreadsheet", b"PK\x03\x04\0\0", "NUL"),
    ("an open quote", b'image,row,col\n"good.dcm,60,70\n', "quote"),
]
"""Name, contents, and what is said: these stop the command."""


def write_study(folder: Path) -> Path:
    """Write all bad inputs into a folder, and a table with a good node after each; return the table."""
    shutil.copy(shipped_path("CT_small.dcm"), folder / GOOD)
    table = folder / "nodes.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "row", "col", "node", "frame", "spacing_mm"))
        for bad in BAD_INPUTS:
            bad.make(folder / bad.image)
            row = [bad.image, bad.row, bad.col, bad.name, bad.frame, bad.spacing_mm]
            writer.writerow([*row, bad.more] if bad.more else row)
            writer.writerow((GOOD, *AT, f"after {bad.name}", "", ""))
    return table
