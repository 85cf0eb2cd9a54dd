"""LymphCAD, the ground floor: DICOM in, tables, the bundle, findings and overlays. Neither torch nor Triton.

Research use only; not a medical device.
"""

from importlib.metadata import version

__version__ = version("lymphcad")

RESEARCH_USE_ONLY = "Research use only; not a medical device"
"""The sentence that goes with every result that leaves the system."""
