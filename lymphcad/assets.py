"""Where the bundle lies that is taken if none is named: beside this package in a checkout, inside it in a wheel."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

DEMO_BUNDLE = (_HERE / "_assets" if (_HERE / "_assets").is_dir() else _HERE.parent) / "bundles" / "demo"
"""Made of phantoms: it shows how the software works and knows no patient."""
