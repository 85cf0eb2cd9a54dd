"""What all objects that are written have in common."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lymphcad import RESEARCH_USE_ONLY, __version__
from lymphcad.bundle import bundle_label

if TYPE_CHECKING:
    from datetime import datetime

    from lymphcad.bundle import Manifest
    from lymphcad_client.dicom.source import SourceImage

# highdicom's warnings and log records quote names and UIDs; as in `lymphcad.dicom_header`, once and at import.
warnings.filterwarnings("ignore", module=r"highdicom(\.|$)")
logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)

MAKER = "LymphCAD"
_TYPE_2 = ["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"]
_TYPE_2 += ["StudyTime", "ReferringPhysicianName"]
_OF_TODAY = ["InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"]
_TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")


@dataclass(frozen=True)
class Maker:
    """Who answered, as Enhanced General Equipment (PS3.3, C.7.5.2) and the series have it.

    Attributes
    ----------
    manifest, digest
        The bundle's.
    """

    manifest: Manifest
    digest: str

    @property
    def bundle(self) -> str:
        """Name of the bundle, and the start of its digest."""
        return bundle_label(self.manifest, self.digest)

    def series(self, number: int, what: str) -> dict[str, Any]:
        """Return highdicom's arguments for a series and its equipment.

        Parameters
        ----------
        number
            Series Number.
        what
            What is in it.

        Returns
        -------
        dict
            Keyword arguments of `highdicom.SOPClass`.
        """
        return {
            "series_number": number,
            "series_description": f"LymphCAD, research use only: {what}",
            "manufacturer": MAKER,
            "manufacturer_model_name": MAKER,
            "software_versions": (__version__, self.bundle),
            "device_serial_number": self.digest[:16],
        }


def reference_image(source: SourceImage) -> Dataset:
    """Return the image as highdicom wants it: what it refers to, and where its one frame lies.

    Texts, dates and names are not in it: highdicom would check, convert and log them. `finish` puts them in.

    Parameters
    ----------
    source
        The image.

    Returns
    -------
    Dataset
        A frame looks as if it were an image of its own.
    """
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
    image.SeriesInstanceUID, image.StudyInstanceUID = source.series_instance_uid, source.study_instance_uid
    image.Rows, image.Columns = source.rows, source.columns
    for keyword in _TYPE_2:
        setattr(image, keyword, None)
    image.update(source.lossy)
    if source.plane is not None:
        image.FrameOfReferenceUID = source.plane.frame_of_reference_uid
        image.ImagePositionPatient = [f"{value:.10g}" for value in source.plane.position_mm]
        image.ImageOrientationPatient = [f"{value:.10g}" for value in source.plane.orientation]
        image.PixelSpacing = [f"{value:.10g}" for value in source.plane.spacing_mm]
        image.SliceThickness = source.thickness_mm
    return image


def source_reference(source: SourceImage) -> Dataset:
    """Return an item of Source Image Sequence (PS3.3, C.7.6.1 and 10.3).

    Parameters
    ----------
    source
        The image.

    Returns
    -------
    Dataset
        With the frame, in a file of several.
    """
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def finish(made: Dataset, source: SourceImage, when: datetime) -> bytes:
    """File an object in the study of its image, and encode it.

    The same object gives the same bytes: what highdicom takes from the clock is left out, or is `when`.

    Parameters
    ----------
    made
        The object.
    source
        The image that it is about.
    when
        Content Date and Time.

    Returns
    -------
    bytes
        A DICOM file (PS3.10).
    """
    ours = all(str(element.value).isascii() for element in made.iterall() if element.VR in _TEXT_VRS)
    made.update(source.filing)
    if not ours:  # our texts need not be in the image's character set, and Unicode holds both
        made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _OF_TODAY:
        if keyword in made:
            delattr(made, keyword)
    if made.Modality != "SR":
        made.Laterality = None  # of a paired part of the body, which is not said (PS3.3, C.7.3.1, type 2C)
    for equipment in made.ContributingEquipmentSequence:
        del equipment.ContributionDateTime
    made.ContentDate, made.ContentTime = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def notice() -> str:
    """Return the sentence that each object carries."""
    return f"{RESEARCH_USE_ONLY}."
