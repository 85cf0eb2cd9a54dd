"""``results.parquet`` says what ``results.csv`` says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom.data import get_testdata_file
from scoring import rows_of

import lymphcad
from lymphcad.cli import main

pytest.importorskip("pyarrow")

from lymphcad_client import parquet as module
from lymphcad_client.batch import Result
from lymphcad_client.results import COLUMNS
from pyarrow import parquet, types

from lymphcad.tables import NodeRow

CT = get_testdata_file("CT_small.dcm", download=False)
NUMBERS = {"row": ".10g", "col": ".10g", "probability": ".6f", "threshold": ".6f"}


@pytest.fixture
def table(tmp_path):
    lines = [
        f'{CT},60.123456789012,70,"a, ""b"""',
        f"{CT},9999,70,far",
        f"{CT},,70,no row",
        "gone.dcm,1,2,größe",
        f"{CT},61,71,last",
    ]
    path = tmp_path / "nodes.csv"
    path.write_text("\n".join(["image,row,col,node", *lines]) + "\n", encoding="utf-8")
    return path


def run(request, table, out, *options):
    edge = "--edge", str(request.config.rootpath / "bundles" / "demo"), "--runner", "onnxruntime"
    with pytest.raises(SystemExit) as ended:
        main(["score", "--nodes", str(table), "--out", str(out), *edge, *options])
    return ended.value.code


def as_text(name, value):
    return "" if value is None else format(value, NUMBERS.get(name, ""))


def test_the_same_as_the_csv_with_types(request, table, tmp_path):
    out = tmp_path / "out"
    assert run(request, table, out, "--format", "csv,parquet") == 3
    found = parquet.read_table(out / "results.parquet")
    assert tuple(found.column_names) == COLUMNS
    for name, column in zip(COLUMNS, found.schema, strict=True):
        assert types.is_float64(column.type) if name in NUMBERS else types.is_string(column.type)
    rows = rows_of(out)
    assert [row[4] for row in rows] == ["scored", "refused", "refused", "refused", "scored"]
    assert [[as_text(name, row[name]) for name in COLUMNS] for row in found.to_pylist()] == rows
    assert found["row"][0].as_py() == 60.123456789012
    assert found["heatmap"][0].as_py() == "overlays/000001.png"
    assert [found[name].null_count for name in ("row", "reason", "probability", "call", "heatmap")] == [1, 2, 3, 3, 3]
    assert found.schema.metadata[b"notice"].decode() == lymphcad.RESEARCH_USE_ONLY
    assert not (out / "results.parquet.part").exists()


def test_alone(request, table, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("results.csv", "results.parquet"):
        (out / name).write_text("of an earlier run")
    assert run(request, table, out, "--format", "parquet", "--no-overlays") == 3
    assert parquet.read_table(out / "results.parquet")["heatmap"].null_count == 5
    assert not (out / "results.csv").exists()


def test_without_its_extra_nothing_is_begun(request, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(request, table, tmp_path / "out", "--format", "parquet") == 2
    assert (
        capsys.readouterr().err == "lymphcad: this command needs the package pyarrow: pip install 'lymphcad[parquet]'\n"
    )
    assert not (tmp_path / "out").exists()


def results(count):
    return (
        (Result(NodeRow(line, f"{line}.dcm", line / 3, 2.0, str(line)), "refused", "r"), "") for line in range(count)
    )


@pytest.mark.parametrize("count", [0, 9, 10, 25])
def test_many_rows_are_written_in_groups(tmp_path, monkeypatch, count):
    def watched():
        for result in results(count):
            assert not (tmp_path / "results.parquet").exists()  # until it is whole
            yield result

    monkeypatch.setattr(module, "_GROUP", 10)
    module.write_parquet(watched(), tmp_path)
    found = parquet.ParquetFile(tmp_path / "results.parquet")
    assert found.num_row_groups == -(-count // 10)
    assert found.read()["row"].to_pylist() == [line / 3 for line in range(count)]


FULL = """
import resource, sys
from pathlib import Path
from lymphcad.errors import CommandError
from lymphcad.tables import NodeRow
from lymphcad_client.batch import Result
from lymphcad_client.parquet import write_parquet

rows = ((Result(NodeRow(n, f"{n * 7919}.dcm", n / 3, 2.0, str(n)), "refused", "r"), "") for n in range(40_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_parquet(rows, Path(sys.argv[1]))
except CommandError as error:
    print(error)
"""


def test_a_full_disk_leaves_no_half_of_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"'{tmp_path}' cannot be written to (File too large): make room, or name another --out\n"
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())
