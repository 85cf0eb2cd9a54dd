"""The whole table of bad inputs through `lymphcad score`, on a real server and in each runner of the edge variant."""

from __future__ import annotations

import csv

import pytest
from refusals import BAD_INPUTS, BAD_TABLES, write_study

from lymphcad.cli import main
from lymphcad.errors import Reason

pytestmark = pytest.mark.server
OF_AN_ARCHIVE = {Reason.BAD_ARCHIVE, Reason.UNSAFE_NAME}  # tests/lymphcad/test_archive.py meets them
OF_AN_ANNOTATION = {Reason.NOT_A_POINT, Reason.OTHER_FRAME_OF_REFERENCE, Reason.OFF_SLICE}  # annotations/test_find.py
OF_A_DICOM_RESULT = {Reason.NO_STUDY}  # dicom/test_dicom_sources.py
OF_THE_AUDIT = {Reason.AUDIT_FAILED}  # audit/test_auditor.py
OF_THE_SCORER = {
    Reason.SERVER_AWAY, Reason.SERVER_NOT_READY, Reason.SERVER_TIMEOUT, Reason.SERVER_BUSY, Reason.SERVER_ERROR,
    Reason.MODEL_MISSING, Reason.OTHER_BUNDLE, Reason.BAD_ANSWER, Reason.RUNNER_ERROR,
}  # fmt: skip


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture(scope="module")
def rows(scored_by, tmp_path_factory):
    """Rows of results.csv by node."""
    folder = tmp_path_factory.mktemp("study")
    out = tmp_path_factory.mktemp("results")
    table = write_study(folder)
    assert run("score", folder, "--nodes", table, "--out", out, *scored_by, "--no-overlays") == 3
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    expected = [name for bad in BAD_INPUTS for name in (bad.name, f"after {bad.name}")]
    assert [row["node"] for row in found] == expected
    return {row["node"]: row for row in found}


def test_the_table_has_every_reason():
    others = OF_THE_SCORER | OF_AN_ARCHIVE | OF_AN_ANNOTATION | OF_A_DICOM_RESULT | OF_THE_AUDIT
    assert {bad.reason for bad in BAD_INPUTS} == {*Reason} - others


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_refused_with_its_reason_and_the_others_go_on(rows, bad):
    row = rows[bad.name]
    code, separator, sentence = row["reason"].partition(": ")
    assert (row["status"], code, separator) == ("refused", bad.reason.value, ": ")
    assert len(sentence) > 40
    assert "\n" not in sentence
    assert not any(row[name] for name in ("probability", "call", "threshold", "heatmap", "bundle"))
    after = rows[f"after {bad.name}"]
    assert after["status"] == "scored"
    assert after["probability"] == rows[f"after {BAD_INPUTS[0].name}"]["probability"]


@pytest.mark.parametrize(("contents", "words"), [row[1:] for row in BAD_TABLES], ids=[row[0] for row in BAD_TABLES])
def test_a_table_that_cannot_be_used_stops_the_command(scored_by, tmp_path, capsys, contents, words):
    (tmp_path / "nodes.csv").write_bytes(contents)
    out = tmp_path / "out"
    assert run("score", "--nodes", tmp_path / "nodes.csv", "--out", out, *scored_by) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert words in error
    assert error.count("\n") == 1
    assert not out.exists()
