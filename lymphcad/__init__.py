"""LymphCAD, the ground floor: DICOM in, tables, the bundle, findings and overlays. Neither torch nor Triton.

Research use only; not a medical device.
"""

import os
import sys
from importlib.metadata import version

__version__ = version("lymphcad")

RESEARCH_USE_ONLY = "Research use only; not a medical device"
"""The sentence that goes with every result that leaves the system."""

# ONNX Runtime and OpenVINO report their use to their makers unless told not to before they are imported; nothing that
# handles patients' images may. OpenVINO goes without where this module cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
