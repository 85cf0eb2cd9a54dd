from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lymphcad_client.batch import Result
from lymphcad_client.journal import JOURNAL, Journal, table_digest

from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad.finding import Finding
from lymphcad.tables import NodeRow

NODES = [NodeRow(line, f"Doe^Jane {line}.dcm", 1.5 * line, 2.0, f"n{line}") for line in range(1, 11)]
MADE_FOR = {"bundle": "a" * 64, "overlays": True, "heatmaps": True}


def scored(number, study="s"):
    heatmap = np.full((4, 4), number, np.uint8)
    finding = Finding(0.1 + number / 100, "benign", 0.5, heatmap, "made@0")
    return Result(NODES[number - 1], "scored", "", finding, input_sha256=f"{number:064x}", study=study)


def refused(number, study=""):
    return Result(NODES[number - 1], "refused", "node_in_padding: made for the test", study=study)


def failed(number):
    return Result(NODES[number - 1], "failed", "server_away: made for the test")


def opened(folder, *, resume=True, nodes=NODES, **made_for):
    return Journal(folder, nodes, MADE_FOR | made_for, resume=resume)


def test_what_is_written_comes_back_in_order(tmp_path):
    with opened(tmp_path) as journal:
        journal.write(3, scored(3), "overlays/3.png")
        journal.write(1, refused(1), "")
        journal.write(2, failed(2), "")
    with opened(tmp_path) as journal:
        assert journal.done() == {1, 3}
        assert journal.counts() == {"scored": 1, "refused": 1, "failed": 1}
        found = list(journal.results())
    assert [(number, result.status, picture) for number, result, picture in found] == [
        (1, "refused", ""), (2, "failed", ""), (3, "scored", "overlays/3.png"),
    ]  # fmt: skip
    answer, expected = found[2][1].finding, scored(3).finding
    assert (answer.probability, answer.call, answer.bundle) == (expected.probability, expected.call, expected.bundle)
    assert np.array_equal(answer.heatmap, expected.heatmap)
    assert found[2][1].node is NODES[2]
    assert found[2][1].input_sha256 == f"{3:064x}"


def test_a_node_that_failed_is_written_over(tmp_path):
    with opened(tmp_path) as journal:
        journal.write(2, failed(2), "")
        journal.commit()
        journal.write(2, scored(2), "")
        assert journal.done() == {2}
        assert [result.status for _, result, _ in journal.results()] == ["scored"]


def test_studies_in_the_order_of_the_table(tmp_path):
    with opened(tmp_path) as journal:
        for number, study in ((1, "b"), (2, "a"), (3, "b"), (4, "")):
            journal.write(number, scored(number, study), "")
        journal.write(5, refused(5, "b"), "")
        journal.write(6, refused(6, "c"), "")
        assert journal.studies() == ["b", "a", ""]
        assert [number for number, _, _ in journal.results("b")] == [1, 3, 5]


def test_no_heatmaps_where_nobody_asked(tmp_path):
    with opened(tmp_path, heatmaps=False) as journal:
        journal.write(1, scored(1), "")
        assert next(journal.results())[1].finding.heatmap.shape == (0, 0)


@pytest.mark.parametrize(
    ("made_for", "words"),
    [
        ({"bundle": "b" * 64}, "another bundle"),
        ({"overlays": False}, "overlays"),
        ({"heatmaps": False}, "DICOM"),
        ({"nodes": NODES[:-1]}, "table of nodes"),
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path, made_for, words):
    with opened(tmp_path) as journal:
        journal.write(1, scored(1), "")
    with pytest.raises(CommandError, match=words):
        opened(tmp_path, **made_for)
    with opened(tmp_path) as journal:
        assert journal.done() == {1}


def test_an_unfinished_one_is_not_thrown_away(tmp_path):
    with opened(tmp_path, resume=False) as journal:
        journal.write(1, scored(1), "")
    with pytest.raises(CommandError, match=r"1 of 10 nodes.*--resume"):
        opened(tmp_path, resume=False)
    with opened(tmp_path) as journal:
        for number in range(1, 11):
            journal.write(number, scored(number), "")
    with opened(tmp_path, resume=False) as journal:  # it was finished, so this is a new run
        assert journal.done() == set()


def test_nothing_in_it_names_a_patient(tmp_path):
    with opened(tmp_path) as journal:
        journal.write(1, scored(1), "overlays/000001.png")
    assert b"Doe" not in (tmp_path / JOURNAL).read_bytes()


def test_one_process_at_a_time(tmp_path):
    with opened(tmp_path), pytest.raises(CommandError, match="another run"):
        opened(tmp_path)


def test_a_process_that_is_killed_leaves_what_was_committed(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_journal as t\n"
        "journal = t.opened(Path(sys.argv[1]))\n"
        "for number in range(1, 6): journal.write(number, t.scored(number), '')\n"
        "journal.commit(); journal.write(6, t.scored(6), ''); os.kill(os.getpid(), 9)\n"
    )
    folder = str(Path(__file__).parent)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), folder], check=False).returncode == -9
    with opened(tmp_path) as journal:
        assert journal.done() == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("contents", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_one_is_refused_in_a_sentence(tmp_path, contents):
    (tmp_path / JOURNAL).write_bytes(contents)
    with pytest.raises(CommandError, match="the journal in"):
        opened(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == contents


def test_one_that_was_killed_before_it_had_begun(tmp_path):
    sqlite3.connect(tmp_path / JOURNAL).execute("CREATE TABLE run (made_for TEXT NOT NULL)")
    with opened(tmp_path) as journal:
        assert journal.done() == set()


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(CommandError, match="cannot be used"):
        opened(tmp_path / "nothing")


@pytest.mark.parametrize(
    "other",
    [
        NodeRow(9, "b", 1.0, 2.0, "n"),
        NodeRow(1, "a", 1.0, 2.5, "n"),
        NodeRow(1, "a", 1.0, 2.0, "m"),
        NodeRow(1, "a", 1.0, 2.0, "n", frame=1),
        NodeRow(1, "a", 1.0, 2.0, "n", spacing_mm=0.5),
        NodeRow(1, "a", None, 2.0, "n"),
        NodeRow(1, "a", 1.0, 2.0, "n", refusal=Refusal(Reason.BAD_ROW, "made for the test")),
    ],
)
def test_the_digest_of_a_table(other):
    one = NodeRow(1, "a", 1.0, 2.0, "n")
    assert table_digest([one]) == table_digest([NodeRow(7, "a", 1.0, 2.0, "n")])  # lines and comments do not matter
    assert table_digest([one]) != table_digest([other])
    assert table_digest([one, other]) != table_digest([other, one])
