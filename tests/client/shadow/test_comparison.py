"""The comparison's figures, against other libraries and by hand, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lymphcad_client.shadow.comparison import proportion, psi

from lymphcad.cli import main


def answer(bundle, probability, ms=5.0, threshold=0.5):
    call = "metastatic" if probability >= threshold else "benign"
    return {"bundle": bundle, "probability": probability, "threshold": threshold, "call": call, "ms": ms}


def pair(number, first, second, *, bundles=("a@1", "b@2"), error=None, heatmap=1.5):
    line = {
        "event": "pair",
        "time": "2026-01-01T00:00:00.000Z",
        "input_sha256": f"{number:064x}",
        "first": answer(bundles[0], first),
        "second": None if second is None else answer(bundles[1], second, 9.0, 0.6),
        "heatmap_difference": None if second is None else heatmap,
        "error": error,
    }
    return json.dumps(line)


OPENED = '{"event":"opened","time":"2026-01-01T00:00:00.000Z","notice":""}'


def closed(skipped=0, unanswered=0):
    return json.dumps({
        "event": "closed", "time": "", "pairs": 0, "failed": 0, "skipped": skipped, "unanswered": unanswered,
    })  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def do(*lines, name="pairs.jsonl"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name

    return do


@pytest.fixture
def run(capsys):
    def do(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["shadow", *(str(argument) for argument in arguments)])
        out, error = capsys.readouterr()
        return int(ended.value.code or 0), out, error

    return do


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (1, 20), (13, 40), (500, 1000)])
def test_intervals_are_scipys(count, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    found = proportion([True] * count + [False] * (n - count))
    assert found["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-12)
    assert (found["count"], found["n"], found["share"]) == (count, n, count / n)
    assert 0 <= found["ci95"][0] <= found["ci95"][1] <= 1


def test_psi():
    assert psi(np.array([5, 5]), np.array([5, 5])) == 0
    # (0.9 - 0.5) ln(0.9 / 0.5) + (0.1 - 0.5) ln(0.1 / 0.5), for so many that half a node is nothing
    many = np.array([9, 1]) * 10**9
    assert psi(np.array([5, 5]) * 10**9, many) == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2), abs=1e-6)
    assert psi(many, np.array([5, 5]) * 10**9) == pytest.approx(psi(np.array([5, 5]) * 10**9, many))
    assert 0 < psi(np.array([10, 0]), np.array([0, 10])) < np.inf


def test_figures(write, run):
    file = write(
        OPENED,
        pair(1, 0.42, 0.72),  # to metastatic
        pair(2, 0.55, 0.55),  # to benign, by the thresholds alone
        pair(3, 0.95, 0.85),
        pair(4, 0.1, 0.1),
        pair(4, 0.1, 0.1),  # the same input again
        pair(5, 0.1, None, error="server_away"),
        pair(6, 0.1, None, error="server_away"),
        pair(7, 0.1, None, error="server_timeout"),
        closed(skipped=4, unanswered=2),
        OPENED,
        '{"event":"pair","time":"2026',
    )
    other = write(OPENED, pair(8, 0.2, 0.25, heatmap=4.5), closed(skipped=1), name="other.jsonl")
    code, out, error = run(file, other, "--json")
    assert (code, error) == (0, "")
    found = json.loads(out)
    assert (found["n"], found["repeated"], found["skipped"], found["unanswered"]) == (5, 1, 5, 2)
    assert (found["runs"], found["not_closed"], found["damaged"]) == (3, 1, 1)
    assert found["failed"] == {"server_away": 2, "server_timeout": 1}
    flips = {name: value["count"] for name, value in found["flips"].items()}
    assert flips == {"to_metastatic": 1, "to_benign": 1, "both": 2}
    assert found["first"]["metastatic"]["count"] == 2
    assert found["second"]["metastatic"]["count"] == 2
    assert found["first"]["histogram"] == [0, 1, 1, 0, 1, 1, 0, 0, 0, 1]
    assert found["second"]["histogram"] == [0, 1, 1, 0, 0, 1, 0, 1, 1, 0]
    assert found["first"]["bundle"] == "a@1"
    assert found["second"]["threshold"] == 0.6
    assert found["second"]["ms"] == {"median": 9.0, "p95": 9.0}
    difference = [0.3, 0, -0.1, 0, 0.05]
    assert found["difference"]["mean"] == pytest.approx(np.mean(difference))
    assert found["difference"]["mean_absolute"] == pytest.approx(np.mean(np.abs(difference)))
    assert found["difference"]["quantiles"]["0"] == pytest.approx(-0.1)
    assert found["difference"]["quantiles"]["0.25"] == pytest.approx(0)
    assert found["difference"]["quantiles"]["1"] == pytest.approx(0.3)
    assert found["heatmap_difference"] == {"n": 5, "mean": pytest.approx(2.1), "largest": 4.5}
    assert [node["input_sha256"] for node in found["largest"]] == [f"{n:064x}" for n in (1, 3, 8, 2, 4)]
    assert [node["flipped"] for node in found["largest"]] == [True, False, False, True, False]


def test_the_report(write, run, tmp_path):
    file = write(OPENED, *(pair(n, n / 40, (n + 1) / 41) for n in range(40)), closed(skipped=2))
    code, out, error = run(file, "--out", tmp_path / "report.md")
    assert (code, error) == (0, "")
    assert (tmp_path / "report.md").read_text() == out
    assert "**Research use only; not a medical device.**" in out
    assert "| compared " in out
    assert "no truth is known here" in out
    assert "Nodes are skipped while many come at once" in out
    assert "## The largest differences" in out
    assert f"{39:064x}"[:20] in out
    tables = [line for line in out.splitlines() if line.startswith("|")]
    assert len(tables) > 15
    assert "nan" not in out


def test_nothing_to_compare_is_said_and_why(write, run):
    code, out, _ = run(write(OPENED, pair(1, 0.1, None, error="server_away"), closed()))
    assert code == 3
    assert "| no second answer: server_away " in out
    assert json.loads(run(write(OPENED, closed(skipped=3)), "--json")[1])["skipped"] == 3


def test_pairs_of_other_bundles_are_not_mixed(write, run):
    one = write(OPENED, pair(1, 0.1, 0.1))
    other = write(OPENED, pair(2, 0.1, 0.1, bundles=("a@1", "c@3")), name="other.jsonl")
    assert run(one)[0] == run(other)[0] == 0
    code, out, error = run(one, other)
    assert (code, out) == (2, "")
    assert "different bundles (a@1 and b@2, a@1 and c@3)" in error


@pytest.mark.parametrize("content", ["", "Dear colleague\n", '{"seq": 1}\n', "\x00\xff\n"])
def test_a_file_of_something_else_is_refused(tmp_path, run, content):
    (tmp_path / "file").write_text(content, encoding="latin-1")
    code, out, error = run(tmp_path / "file")
    assert (code, out) == (2, "")
    assert "holds no pairs of answers" in error


def test_a_file_that_is_not_there_and_one_that_cannot_be_written(write, run, tmp_path):
    code, _, error = run(tmp_path / "none")
    assert code == 2
    assert "cannot be read" in error
    code, out, error = run(write(OPENED, pair(1, 0.1, 0.1)), "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "cannot be written" in error
