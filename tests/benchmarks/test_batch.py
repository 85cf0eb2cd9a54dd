"""The benchmark of whole batches runs and prints its JSON. What it says of speed is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lymphcad.dicom import read_slice

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from benchmarks.batch_files import write_files

    return write_files(tmp_path_factory.mktemp("batch") / "files", 3)


def test_both_encodings_show_the_same_distinct_slices(files):
    slices = []
    for name, _, _ in files.samples:
        plain, compressed = read_slice(files.uncompressed / name), read_slice(files.jpeg2000 / name)
        assert plain.sop_instance_uid == compressed.sop_instance_uid
        np.testing.assert_array_equal(plain.hu, compressed.hu)
        assert plain.hu.shape == (512, 512)
        slices.append(plain.hu.tobytes())
    assert len(set(slices)) == 3


@pytest.mark.parametrize(("grouped", "files_read"), [(False, 24), (True, 6)])
def test_how_often_a_table_changes_its_file(files, grouped, files_read):
    lines = files.table(24, grouped=grouped).read_text().splitlines()[1:]
    images = [line.split(",")[0] for line in lines]
    assert len(set(lines)) == 24
    assert 1 + sum(one != other for one, other in pairwise(images)) == files_read


@pytest.mark.server
def test_what_is_printed(probe_bundle):
    few = ("--files", 3, "--nodes", 6, 40, "--seconds", 0.2, "--rounds", 1, "--memory", 400)
    command = [sys.executable, "-m", "benchmarks.batch", "--json", "--bundle", str(probe_bundle.path), *map(str, few)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    (results,) = found["bundles"].values()
    bare = results["bare"]
    assert set(bare["images_s"]) == {"shared_memory", "message"}
    rates = [rate for way in bare["images_s"].values() for rate in way.values()]
    assert len(rates) == 6
    assert bare["limit"] == max(rates) > min(rates) > 0
    assert set(results["score"]) == {"uncompressed", "uncompressed, grouped", "jpeg2000"}
    for one in results["score"].values():
        assert one["ratio"] == pytest.approx(one["nodes_s"] / bare["limit"], rel=0.01, abs=0.001)
        assert one["whole_nodes_s"] > 0
    kept = results["bookkeeping"]
    assert set(kept["ms"]) == {"journal", "csv"}
    per_node = 1000 / results["score"]["uncompressed"]["nodes_s"]
    assert kept["share"] == pytest.approx(sum(kept["ms"].values()) / per_node, abs=1e-3)
    samples = results["memory"]["samples"]
    assert samples == sorted(samples, key=lambda sample: sample[0])
    assert all(20 < main <= whole < 2000 for _, main, whole in samples)
    later = max(sample[2] for sample in samples[1:] or samples)
    assert results["memory"]["grown_mb"] == pytest.approx(later - samples[0][2], abs=0.11)
    assert "| uncompressed, grouped |" in done.stderr
