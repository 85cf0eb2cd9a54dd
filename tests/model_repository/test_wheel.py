"""What pip installs from a wheel is whole: nothing is found in the checkout that a wheel does not carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lymphcad_serve.assets import MODEL_REPOSITORY

from lymphcad.assets import DEMO_BUNDLE

ROOT = Path(__file__).parents[2]
ASK = "import json, lymphcad.assets as g, lymphcad_serve.assets as s; print(json.dumps([*map(str, [{}])]))"


def test_assets_of_a_checkout():
    assert MODEL_REPOSITORY == ROOT / "model_repository"
    assert DEMO_BUNDLE == ROOT / "bundles" / "demo"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build a wheel and unpack it as pip does, into a folder that goes before this environment's own packages."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)], check=True)
    (wheel,) = folder.glob("lymphcad-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)


def test_assets_of_a_wheel(installed, tmp_path):
    code = ASK.format("g.__file__, s.MODEL_REPOSITORY, g.DEMO_BUNDLE / 'bundle.json'")
    paths = [Path(path) for path in json.loads(run(installed, tmp_path, "-c", code).stdout)]
    assert all(path.is_relative_to(installed) and path.exists() for path in paths)
    assert sum(path.stat().st_size for path in installed.rglob("*.onnx")) < 10e6  # the demo bundle and no other
    ours = ROOT / "dashboard" / "lymphcad_dashboard"
    page = {file.relative_to(ours) for file in ours.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    theirs = installed / "lymphcad_dashboard"
    assert all((theirs / file).is_file() for file in page)  # styles and scripts of the page among them
    assert (installed / "lymphcad_train" / "report" / "templates" / "page.html.jinja").is_file()


def test_a_wheel_writes_the_repository_that_a_checkout_writes(installed, tmp_path, probe_bundle):
    from lymphcad_serve.repository import Target, write_repository

    for target in (Target.EMBEDDED, Target.EMBEDDED_STEPS, Target.CPU):
        ours, theirs = tmp_path / target.value, tmp_path / f"{target.value}-wheel"
        write_repository(probe_bundle, ours, target)
        run(
            installed, tmp_path, "-m", "lymphcad", "repository", str(probe_bundle.path), str(theirs), "--target", target
        )
        files = sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
        assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in files)
