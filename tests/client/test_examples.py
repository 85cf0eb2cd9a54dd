"""The examples of batch scoring, run as their users run them; those of the PACS are run by its tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scoring import finished, rows_of

from lymphcad.phantom.sample import sample_study


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return the table of the sample study, with a node that is refused."""
    folder = tmp_path_factory.mktemp("phantom")
    files, table = sample_study(lambda _: None)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    (folder / "nodes.csv").write_bytes(table.rstrip() + b"\ngone.dcm,1,2,gone\n")
    return folder / "nodes.csv"


@pytest.fixture
def example(request):
    """Return a function that runs an example and returns the lines that it printed."""

    def run(name, *arguments, code=0):
        command = [sys.executable, request.config.rootpath / "client" / "examples" / name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines()

    return run


def probabilities(table, out, *options):
    """Return what the command says of the nodes, by name."""
    finished(table, out, *options, "--no-overlays", code=3)
    return {row[3]: f"{float(row[6]):.3f}" if row[6] else None for row in rows_of(out)}


def test_score_table(example, table, tmp_path, request):
    pytest.importorskip("onnxruntime")
    bundle = request.config.rootpath / "bundles" / "demo"
    *scored, gone = probabilities(table, tmp_path, "--edge", bundle).items()
    lines = example("score_table.py", table, bundle, code=3)
    assert [line.split(", ")[0] for line in lines] == [f"{node}: {value}" for node, value in scored] + ["gone: refused"]
    assert gone == ("gone", None)


@pytest.mark.server
def test_score_async(example, table, serve_probe, tmp_path):
    address = serve_probe("embedded")
    expected = probabilities(table, tmp_path, "--server", address)
    *lines, last = example("score_async.py", table, address)
    assert [line.split(" ")[:3] for line in lines[:-1]] == [
        [f"{node}:", "scored", value] for node, value in expected.items() if value
    ]
    assert lines[-1].startswith("gone: refused file_missing")
    assert int(last.split()[4]) > 0


@pytest.mark.server
def test_score_on_several_servers(example, table, serve_probe, tmp_path):
    address = serve_probe("embedded")
    expected = {node: value for node, value in probabilities(table, tmp_path, "--server", address).items() if value}
    about, *lines, counts = example("score_on_several_servers.py", table, address, "grpc://127.0.0.1:1")
    assert about.startswith("Scored by 2 Triton servers. Away at the start")
    assert lines == [f"{node} {value}" for node, value in expected.items()]
    assert counts == str({"scored": len(expected), "refused": 1})
