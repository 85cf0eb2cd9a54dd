from __future__ import annotations

import os
import subprocess
import sys

import pytest

USE = """
import sys
import lymphcad, onnxruntime, openvino
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
openvino.Core().compile_model(sys.argv[1], "CPU")
"""


def test_the_engines_report_nothing(tmp_path, probe_bundle):
    """Both would leave an identifier of this machine and a queue of events in the home folder."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    without = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-c", USE, str(probe_bundle.path / "cam.onnx")]
    subprocess.run(command, env={**without, "HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.iterdir())
