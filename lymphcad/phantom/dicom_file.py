"""A phantom's slice as a file: a CT Image (PS3.3, A.3) that `dciodvfy` has no error for."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SLICE_MM = 2.5
_INTERCEPT = -1024
_DATE, _TIME = "20260101", "120000"


@dataclass(frozen=True)
class Place:
    """Where a slice belongs.

    Attributes
    ----------
    cohort
        What the UIDs are made from, with the two below: the same cohort has the same UIDs.
    patient
        Number, from 1.
    instance
        Number of the slice in the patient's series, from 1.
    position_mm
        Centre of the first pixel: x, y, z of the patient, mm.
    spacing_mm
        Side of a pixel, mm.
    """

    cohort: str
    patient: int
    instance: int
    position_mm: tuple[float, float, float]
    spacing_mm: float


def write_ct(path: Path, hu: npt.NDArray[np.int16], place: Place) -> None:
    """Write one slice to a new file; `hu` and `place` are as in `ct_file`."""
    path.write_bytes(ct_file(hu, place))


def ct_file(hu: npt.NDArray[np.int16], place: Place) -> bytes:
    """Make the file of one slice, Explicit VR Little Endian, 12 bits stored.

    Parameters
    ----------
    hu
        int16 [rows, columns], HU, -1024 to 3071.
    place
        Where it belongs.

    Returns
    -------
    bytes
        A DICOM file (PS3.10).
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(place, "image", place.instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    file = FileDataset(stream, {}, file_meta=meta, preamble=b"\0" * 128)
    _patient_and_study(file, place)
    _series_and_equipment(file, place)
    _image(file, place)
    stored = (hu.astype(np.int32) - _INTERCEPT).astype("<u2")
    _pixels(file, stored, place.spacing_mm)
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _uid(place: Place, kind: str, number: int = 0) -> str:
    """Return a UID made from a UUID (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{place.cohort} {place.patient} {kind} {number}').int}"


def _patient_and_study(file: Dataset, place: Place) -> None:
    file.PatientName = f"Phantom^{place.patient:04d}"
    file.PatientID = f"PHANTOM-{place.patient:04d}"
    file.PatientBirthDate = ""
    file.PatientSex = "O"
    file.PatientComments = f"Made by a program, no person. {RESEARCH_USE_ONLY}."
    file.StudyInstanceUID = _uid(place, "study")
    file.StudyDate = file.SeriesDate = file.AcquisitionDate = file.ContentDate = _DATE
    file.StudyTime = file.SeriesTime = file.AcquisitionTime = file.ContentTime = _TIME
    file.AccessionNumber = ""
    file.ReferringPhysicianName = ""
    file.StudyID = "1"
    file.StudyDescription = "Phantom of the neck"


def _series_and_equipment(file: Dataset, place: Place) -> None:
    file.Modality = "CT"
    file.SeriesInstanceUID = _uid(place, "series")
    file.SeriesNumber = 1
    file.SeriesDescription = "Neck, axial, contrast"
    file.BodyPartExamined = "NECK"
    file.PatientPosition = "HFS"
    file.FrameOfReferenceUID = _uid(place, "frame")
    file.PositionReferenceIndicator = ""
    file.Manufacturer = "LymphCAD"
    file.ManufacturerModelName = "Phantom"


def _image(file: Dataset, place: Place) -> None:
    file.SOPClassUID = CTImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.AcquisitionNumber = 1
    file.InstanceNumber = place.instance
    file.ContrastBolusAgent = "Iodine"
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.ImagePositionPatient = [f"{value:.3f}" for value in place.position_mm]
    file.SliceThickness = SLICE_MM
    file.KVP = 120
    file.ConvolutionKernel = "SOFT"
    file.BurnedInAnnotation = "NO"


def _pixels(file: Dataset, stored: npt.NDArray[np.uint16], spacing_mm: float) -> None:
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.Rows, file.Columns = stored.shape
    file.PixelSpacing = [f"{spacing_mm:.4f}"] * 2
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = _INTERCEPT, 1, "HU"
    file.WindowCenter, file.WindowWidth = 60, 400
    file.PixelData = stored.tobytes()
