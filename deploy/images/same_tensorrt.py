"""End with a sentence unless the TensorRT of Triton's image is of a version: ``python3 same_tensorrt.py 10.13.0.35``.

A plan is loaded by the version that built it and by no other, so the builder's must be Triton's.
"""

import ctypes
import sys


def found_version(library: str) -> str:
    """Return major, minor and patch of a TensorRT library, ``10.13.0`` (NvInferRuntime.h, getInferLibVersion)."""
    number = ctypes.CDLL(library).getInferLibVersion()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


if __name__ == "__main__":
    asked = sys.argv[1]
    name = f"libnvinfer.so.{asked.partition('.')[0]}"
    try:
        there = found_version(name)
    except OSError:
        sys.exit(f"Triton's image has no {name}: give with TENSORRT the version in its release notes")
    if asked.split(".")[:3] != there.split("."):
        sys.exit(f"Triton's image has TensorRT {there}, and {asked} was asked for: give that version with TENSORRT")
