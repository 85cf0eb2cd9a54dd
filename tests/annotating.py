"""Studies with annotation objects, made on the spot: a small CT series, and what highdicom writes about it."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom import sr
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    generate_uid,
)
from refusals import shipped_path

FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.1"
STEP_MM = 3.0
_numbers = itertools.count()
TILT = np.radians(20)
ORIENTATION = [1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(np.sin(TILT))]
"""Tilted, as a gantry is: row and column, x and y, no two are the same."""


def ct_series(number=5, frame_of_reference=FRAME_OF_REFERENCE, series="7", step_mm=STEP_MM, thickness_mm=2.0):
    """Return the slices of a series: 128 x 128 pixels of 0.5 x 0.75 mm."""
    normal = np.cross(ORIENTATION[:3], ORIENTATION[3:])
    slices = []
    for index in range(number):
        ct = pydicom.dcmread(shipped_path("CT_small.dcm"))
        ct.SOPInstanceUID = ct.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{series}.{index + 1}"
        ct.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{series}"
        ct.FrameOfReferenceUID = frame_of_reference
        ct.PixelSpacing = [0.5, 0.75]
        ct.SliceThickness = thickness_mm
        ct.ImageOrientationPatient = ORIENTATION
        ct.ImagePositionPatient = [round(float(v), 6) for v in [-40, -30, 100] + index * step_mm * normal]
        slices.append(ct)
    return slices


def write(folder, *datasets):
    """Write datasets as files, and return their paths."""
    paths = []
    for dataset in datasets:
        path = Path(folder) / f"{next(_numbers):04d}.dcm"
        dataset.save_as(path)
        paths.append(path)
    return paths


def in_mm(ct, row, col):
    """Return x, y, z of a zero-based pixel: highdicom's own transformation."""
    to_reference = hd.spatial.PixelToReferenceTransformer.for_image(ct)
    return to_reference(np.array([[round(col), round(row)]]))[0]


def scoord(graphic_type, points, ct, frame=None):
    """Return an image region; points are (column, row), and 0, 0 the corner of the first pixel."""
    source = sr.SourceImageForRegion(ct.SOPClassUID, ct.SOPInstanceUID, [frame] if frame else None)
    return sr.ImageRegion(graphic_type, np.array(points, dtype=float), source)


def scoord3d(graphic_type, points, frame_of_reference=FRAME_OF_REFERENCE):
    """Return a region in the patient; points are x, y, z in mm."""
    return sr.ImageRegion3D(graphic_type, np.array(points, dtype=float), frame_of_reference)


def planar(region, name="node", uid=None):
    """Return a planar measurement group (TID 1410)."""
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid or generate_uid(), name),
        referenced_region=region,
        finding_type=codes.SCT.LymphNode,
    )


def volumetric(regions, name="node"):
    """Return a volumetric measurement group (TID 1411)."""
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(generate_uid(), name),
        referenced_regions=regions,
        finding_type=codes.SCT.LymphNode,
    )


def plain(measurements=(), name="node"):
    """Return a measurement group without a region (TID 1501)."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(generate_uid(), name), measurements=list(measurements)
    )


def report(groups, evidence, kind=sr.Comprehensive3DSR, manufacturer="Maker", **other):
    """Return a structured report by TID 1500."""
    person = sr.ObserverContext(codes.DCM.Person, sr.PersonObserverIdentifyingAttributes("Reader^One"))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_person_context=person),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
    )
    found = kind(
        evidence=list(evidence),
        content=content[0],
        series_instance_uid=generate_uid(),
        series_number=900,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=manufacturer,
        is_complete=True,
        is_final=True,
        is_verified=False,
    )
    for keyword, value in other.items():
        setattr(found, keyword, value)
    return found


def item(**elements):
    """Return a sequence item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def graphic(graphic_type, points, units="PIXEL", **other):
    """Return a graphic object; points are (column, row)."""
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points),
        GraphicData=[float(value) for point in points for value in point],
        GraphicType=graphic_type,
        GraphicFilled="N",
        **other,
    )


def text_object(words, anchor=None, units="PIXEL"):
    """Return a text object, with an anchor point or only a box."""
    if anchor is None:
        return item(
            UnformattedTextValue=words,
            BoundingBoxAnnotationUnits="PIXEL",
            BoundingBoxTopLeftHandCorner=[1.0, 1.0],
            BoundingBoxBottomRightHandCorner=[20.0, 20.0],
        )
    return item(UnformattedTextValue=words, AnchorPointAnnotationUnits=units, AnchorPoint=list(anchor))


def annotated(images, graphics=(), texts=()):
    """Return an item of the graphic annotation sequence; images None: it applies to all."""
    found = item(GraphicLayer="NODES")
    if images is not None:
        found.ReferencedImageSequence = [reference(image) for image in images]
    if graphics:
        found.GraphicObjectSequence = list(graphics)
    if texts:
        found.TextObjectSequence = list(texts)
    return found


def reference(image, frame=None):
    """Return a reference to an image."""
    found = item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    if frame is not None:
        found.ReferencedFrameNumber = frame
    return found


def presentation(annotations, images, **other):
    """Return a presentation state; highdicom's own has no graphics of DISPLAY units or without images."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID, found.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    found.Modality, found.Manufacturer = "PR", "Maker"
    found.PresentationCreationDate, found.PresentationCreationTime = "20240101", "120000"
    found.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=images[0].SeriesInstanceUID,
            ReferencedImageSequence=[reference(image) for image in images],
        )
    ]
    found.GraphicAnnotationSequence = list(annotations)
    for keyword, value in other.items():
        setattr(found, keyword, value)
    return found


def copy_of(dataset, **changes):
    """Return a copy with other elements."""
    found = copy.deepcopy(dataset)
    for keyword, value in changes.items():
        setattr(found, keyword, value)
    return found
