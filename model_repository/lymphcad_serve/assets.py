"""Where the files lie that are not Python: beside this package in a checkout, inside it in a wheel."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

MODEL_REPOSITORY = (_HERE / "_assets" if (_HERE / "_assets").is_dir() else _HERE.parents[1]) / "model_repository"
"""The models' configurations and `onnx_cpu/model.py` with its engine."""
