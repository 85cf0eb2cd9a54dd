"""Where the files lie that are not Python: beside this package in a checkout, inside it in a wheel."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE / "_assets" if (_HERE / "_assets").is_dir() else _HERE.parents[1]

MODEL_REPOSITORY = _ROOT / "model_repository"
"""The models' configurations and `onnx_cpu/model.py` with its engine."""
DEMO_BUNDLE = _ROOT / "bundles" / "demo"
"""The bundle that is served if none is named."""
