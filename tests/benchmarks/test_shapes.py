"""The benchmarks run, and print the JSON that others read. What it says of speed is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.server
ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: object) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def test_serving(probe_bundle):
    pytest.importorskip("fastapi")
    bundles = ("--bundle", probe_bundle.path, "--float-bundle", probe_bundle.path)
    found = run("serving", *bundles, "--seconds", 0.2, "--windows", 1)
    has_bf16 = any("bf16" in flag for flag in found["machine"]["flags"])
    assert set(found) == {"int8", "settings", "machine"} | ({"bf16"} if has_bf16 else set())
    for precision in set(found) & {"int8", "bf16"}:
        speeds = found[precision]
        assert set(speeds["served"]) == {"1", "4", "8"}
        assert set(speeds["fastapi"]) == {"4", "8"}
        assert all(rate > 0 for rate in [speeds["raw"], *speeds["served"].values(), *speeds["fastapi"].values()])
        assert speeds["ratio"] == {"8": pytest.approx(speeds["served"]["8"] / speeds["raw"], abs=0.002)}
        assert set(speeds["steps_ms"]) == {"preprocess", "cnn", "cam"}
    assert found["settings"]["windows"] == 1


@pytest.fixture(scope="module")
def untrained_pair(tmp_path_factory):
    """Return a small network as it is made, in float32 and int8."""
    pytest.importorskip("torch")
    from benchmarks.serving import RESNET50_WINDOW, untrained

    folder, window = tmp_path_factory.mktemp("untrained"), RESNET50_WINDOW | {"size": 48}
    return [
        untrained(folder / str(int8), "tf_efficientnet_lite0", window, mirrored=True, int8=int8)
        for int8 in (False, True)
    ]


@pytest.mark.torch
def test_what_is_measured_unless_a_bundle_is_named(untrained_pair):
    assert [bundle.manifest.precisions for bundle in untrained_pair] == [("fp32",), ("int8",)]
    sizes = [bundle.cnn(bundle.manifest.preferred).stat().st_size for bundle in untrained_pair]
    assert sizes[1] < 0.4 * sizes[0]


def test_score(probe_bundle):
    found = run("score", "--bundle", probe_bundle.path, "--nodes", 12, "--runs", 1)
    assert set(found["cpu_ms_a_node"]) == {"no_overlays", "overlays"}
    assert found["settings"] == {"nodes": 12, "runs": 1}


@pytest.mark.torch
def test_edge(untrained_pair):
    from benchmarks.edge import RUNNERS

    floats, bundle = untrained_pair
    bundles = ("--bundle", bundle.path, "--float-bundle", floats.path)
    few = ("--seconds", 0.2, "--windows", 1, "--runs", 1, "--memory-runs", 1, "--nodes", 12, "--no-sizes")
    found = run("edge", *bundles, *few)
    profile = found["profiles"]["untrained"]
    assert set(profile["cold_start_s"]) == set(profile["peak"]) == set(RUNNERS)
    for runner in RUNNERS:
        assert profile["cold_start_s"][runner].keys() == {"cached", "not_cached"}
        assert 50 < profile["peak"][runner]["cached_mb"] < 1000
    rates = profile["throughput"]["images_s"]
    assert len(rates) == 2 * len(RUNNERS) + 2
    assert all(rate > 0 for rate in rates.values())
    of_raw = rates["product openvino"] / rates["raw openvino"]
    assert profile["throughput"]["of_raw"]["openvino"] == pytest.approx(of_raw, abs=0.01)
    assert "installed_mb" not in found


@pytest.mark.torch
def test_training():
    pytest.importorskip("torch")
    arguments = ("--arch", "tf_efficientnet_lite0", "--size", 32, "--batch", 2, "--steps", 2, "--rounds", 1)
    found = run("training", *arguments)
    assert found["ratio"] == pytest.approx(found["trained"] / found["bare"], abs=0.01)
    assert 0 < found["peak_gib"] < 8
