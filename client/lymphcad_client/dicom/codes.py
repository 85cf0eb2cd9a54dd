"""The codes that results are written in: SNOMED CT and DCM where they have one, else our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

SCHEME = "99LYMPHCAD"
"""Designator of our own codes (PS3.16, section 8.2: private ones start with 99)."""

PROBABILITY = CodedConcept("METPROB", SCHEME, "Probability of metastasis")
"""DCM has (111047, "Probability of cancer"), of mammography: that a finding is one, and not that a node holds it."""
CALL = CodedConcept("METCALL", SCHEME, "Call at the operating threshold")
NOT_SCORED = CodedConcept("NOTSCORED", SCHEME, "Node that was not scored")
INPUT_DIGEST = CodedConcept("INPUTSHA256", SCHEME, "SHA-256 of the input")

THRESHOLD: Code = codes.DCM.ThresholdValue
CALLS: dict[str, Code] = {"benign": codes.SCT.Benign, "metastatic": codes.SCT.Metastasis}
"""By the names of `lymphcad.bundle.Manifest.classes`."""
QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")


def own_scheme() -> CodingSchemeIdentificationItem:
    """Return who is responsible for `SCHEME` (PS3.3, C.12.1.1.4)."""
    return CodingSchemeIdentificationItem(SCHEME, name="LymphCAD", responsible_organization="LymphCAD")
