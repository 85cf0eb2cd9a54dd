"""`lymphcad score --dask`: workers, schedulers and the caller die; nothing is lost, and nothing is done twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from scoring import finished, journalled, rows_of, start, wait_for_nodes

import lymphcad
from lymphcad.bundle import Bundle
from lymphcad.cli import main
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import NodeRow, read_nodes

pytest.importorskip("distributed")

import deadly
from clusters import DaskCluster, end
from lymphcad_client import dask_cluster, dask_worker
from lymphcad_client.dask_cluster import Cluster
from lymphcad_client.dask_worker import Run, Work, score_here
from lymphcad_client.opening import Choice

CT = get_testdata_file("CT_small.dcm", download=False)
MADE_OTHERWISE = {
    "nothing": """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lymphcad", "lymphcad_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
""",
    "another": "import lymphcad; lymphcad.__version__ = '0.0.9'",
}


@pytest.fixture(scope="module")
def demo(request):
    """Return the path as a person writes it, which means nothing in the folder of a worker."""
    return os.path.relpath(request.config.rootpath / "bundles" / "demo")


@pytest.fixture(scope="module")
def edge(demo):
    return "--edge", demo, "--runner", "onnxruntime", "--no-overlays"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a table of 400 nodes with paths relative to it; some are refused."""
    folder = tmp_path_factory.mktemp("nodes")
    shutil.copy(CT, folder / "ct.dcm")
    lines = ["image,row,col,node"]
    for number in range(400):
        image, row = "gone.dcm" if number % 50 == 7 else "ct.dcm", 9999 if number % 50 == 30 else 20 + number % 80
        lines.append(f"{image},{row},{20 + number // 80},n{number}")
    (folder / "nodes.csv").write_text("\n".join(lines) + "\n")
    return folder / "nodes.csv"


@pytest.fixture(scope="module")
def quiet(table, edge, tmp_path_factory):
    """Return the rows of a run without Dask."""
    out = tmp_path_factory.mktemp("quiet")
    assert run(table, out, *edge) == 3
    rows = rows_of(out)
    assert [row[4] for row in rows].count("refused") == 16
    return rows


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return two workers that a deadly image ends."""
    folder = tmp_path_factory.mktemp("cluster")
    with DaskCluster(folder, PYTHONPATH=deadly.path_with_hook(folder)) as cluster:
        yield cluster


@pytest.fixture
def workers(cluster):
    cluster.wait_for_workers(2)
    return cluster


def run(table, out, *options):
    """Run `lymphcad score` in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["score", "--nodes", str(table), "--out", str(out), *options])
    return int(ended.value.code or 0)


def said(capsys):
    """Return the one sentence that was said last."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_a_worker_is_killed_in_the_middle(workers, table, edge, quiet, tmp_path):
    out = tmp_path / "out"
    process = start(os.path.relpath(table), out, *edge, "--dask", workers.address)  # no path means anything to a worker
    wait_for_nodes(process, out, 64)
    os.kill(workers.worker_pids()[0], signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error
    assert error.count("\n") == 1
    assert rows_of(out) == quiet


def test_only_the_node_that_ends_its_workers_is_refused(workers, table, edge, quiet, tmp_path, capsys):
    lines = table.read_text().splitlines()[:61]
    (tmp_path / deadly.NAME).touch()
    shutil.copy(CT, tmp_path / "ct.dcm")
    for line in (5, 6, 40):
        lines[line] = lines[line].replace("ct.dcm", deadly.NAME)
    (tmp_path / "nodes.csv").write_text("\n".join(lines) + "\n")
    assert run(tmp_path / "nodes.csv", tmp_path / "out", *edge, "--dask", workers.address) == 3
    rows = rows_of(tmp_path / "out")
    assert [number for number, (one, other) in enumerate(zip(rows, quiet[:60], strict=True), 1) if one != other] == [
        5, 6, 40,
    ]  # fmt: skip
    assert {rows[line - 1][5].partition(":")[0] for line in (5, 6, 40)} == {"unreadable"}
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_is_beside_a_node_that_may_end_its_worker(workers, demo, table, monkeypatch):
    """Else the others would count as what ended it."""
    result, alone, asked, beside = Cluster._result, Cluster._alone, [], []

    def died_at_first(cluster, task):
        asked.append(task)
        return result(cluster, task) if len(asked) > 1 else None

    def watched(cluster, file):
        beside.append([task.status for _, _, task in cluster._waiting])
        return alone(cluster, file)

    monkeypatch.setattr(Cluster, "_result", died_at_first)
    monkeypatch.setattr(Cluster, "_alone", watched)
    choice = Choice(edge=Path(demo), runner="onnxruntime")
    nodes = read_nodes(table)[:100]
    with Cluster(workers.address, choice, Bundle(Path(demo)).digest) as cluster:
        found = list(cluster.score(nodes, ImageFinder(table.parent, [])))
    assert [one.node for one in found] == nodes
    assert len(beside) == 15  # of the first 16 nodes one has no file
    assert {status for statuses in beside for status in statuses} == {"finished"}


def test_stopped_in_the_middle(workers, table, edge, quiet, tmp_path):
    out = tmp_path / "out"
    process = start(table, out, *edge, "--dask", workers.address)
    wait_for_nodes(process, out, 64)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = journalled(out)
    assert 64 <= kept < 400
    assert said_of(error) == [
        f"lymphcad: stopped after {kept} of 400 nodes, which are kept: the same command with --resume goes on"
    ]
    assert run(table, out, *edge, "--dask", workers.address, "--resume") == 3
    assert rows_of(out) == quiet


def said_of(error):
    """Return the sentences of the command; distributed's event loop can add what it met while it was ended."""
    return [line for line in error.splitlines() if line.startswith("lymphcad:")]


def test_all_of_the_cluster_dies(table, edge, quiet, tmp_path):
    """Where the workers or the scheduler do not come back, a sentence says so, and what was done is kept."""
    out = tmp_path / "out"
    with DaskCluster(tmp_path, 1) as cluster:
        options = (*edge, "--dask", cluster.address, "--patience", "0", "--resume")
        cluster.wait_for_workers(1)
        process = start(table, out, *options)
        wait_for_nodes(process, out, 64)
        cluster.end_workers()
        _, error = process.communicate(timeout=60)
        assert process.returncode == 2
        # Dask cancels what was given to workers that close in order, at times before it is seen that none is left.
        (said,) = said_of(error)
        assert said in (
            "lymphcad: the Dask cluster has had no worker for 0 s: start some with `dask worker`, and give the same"
            " command with --resume",
            f"lymphcad: {dask_cluster._GONE}",
        )
        cluster.start_worker()
        cluster.wait_for_workers(1)
        kept = journalled(out)
        process = start(table, out, *options)
        wait_for_nodes(process, out, kept + 64)
        end(cluster.scheduler)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said_of(error) == [f"lymphcad: {dask_cluster._GONE}"]
        kept = journalled(out)
        assert 128 <= kept < 400
        cluster.start_scheduler()
        cluster.start_worker()
        cluster.wait_for_workers(1)
        finished(table, out, *options, code=3)
    assert rows_of(out) == quiet


@pytest.mark.parametrize("what", ["nobody", "no Dask", "no address"])
def test_no_scheduler(table, edge, tmp_path, capsys, monkeypatch, what):
    monkeypatch.setattr(dask_cluster, "_CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if what == "no Dask" else 1
        address = "http://127.0.0.1" if what == "no address" else f"tcp://127.0.0.1:{port}"
        assert run(table, tmp_path / "out", *edge, "--dask", address) == 2
    assert said(capsys).startswith(f"lymphcad: there is no Dask scheduler at '{address}' (")


def test_machines_without_lymphcad_or_with_another(table, edge, tmp_path, capsys):
    made = {}
    for name, code in MADE_OTHERWISE.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        made[name] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])

    lacking = re.compile(r"^lymphcad: a machine of the Dask cluster cannot use LymphCAD \(.*No module named 'lymphcad")

    def refused(cluster):
        assert run(table, tmp_path / "out", *edge, "--dask", cluster.address) == 2
        return said(capsys)

    with DaskCluster(tmp_path, 0) as cluster:
        assert "the Dask cluster has no worker: start some" in refused(cluster)
        cluster.start_worker()
        cluster.start_worker(PYTHONPATH=made["nothing"])
        cluster.wait_for_workers(2)
        assert lacking.search(refused(cluster))
        end(cluster.nannies.pop())
        cluster.start_worker(PYTHONPATH=made["another"])
        cluster.wait_for_workers(2)
        assert "the Dask cluster has LymphCAD 0.0.9, 0.1.0, and this is 0.1.0" in refused(cluster)
        end(cluster.scheduler)
        cluster.end_workers()
        cluster.start_scheduler(PYTHONPATH=made["nothing"])
        cluster.start_worker()
        cluster.wait_for_workers(1)
        assert lacking.search(refused(cluster))


def test_a_worker_that_comes_later_with_another_version():
    with pytest.raises(CommandError, match=r"a Dask worker has LymphCAD .*, and the caller 0\.0\.9"):
        score_here(Work(Run("later", Choice(), "0" * 64, "0.0.9"), []))


@pytest.mark.parametrize("what", ["missing", "another", "fails"])
def test_what_a_worker_cannot_open(workers, demo, table, tmp_path, what, monkeypatch):
    digest = Bundle(Path(demo)).digest
    choice = Choice(edge=Path(demo) if what != "missing" else tmp_path / "none", runner="onnxruntime")
    words = f"'{tmp_path / 'none'}'" if what == "missing" else "a Dask worker's bundle is another one"
    if what == "fails":
        monkeypatch.setattr(dask_cluster, "score_here", len)  # what raises an error that is nobody's refusal
        words = r"a Dask worker cannot score \(object of type 'Work' has no len"
    with (
        Cluster(workers.address, choice, digest if what != "another" else "0" * 64) as cluster,
        pytest.raises(CommandError, match=words),
    ):
        list(cluster.score(read_nodes(table), ImageFinder(table.parent, [])))
    log = workers.log.read_text()
    assert "Compute Failed" in log
    assert "ct.dcm" not in log
    assert "ct.dcm" not in repr(Work(cluster._run, [(read_nodes(table)[0], table.parent / "ct.dcm")]))


def test_a_worker_keeps_one_scorer(demo, monkeypatch):
    """What a run opened is closed when another one opens its own, and not while it is used."""
    monkeypatch.setattr(dask_worker, "_OPEN", {})
    digest = Bundle(Path(demo)).digest
    choice = Choice(edge=Path(demo), runner="onnxruntime")
    files = [(NodeRow(1, CT, 60.0, 70.0, "n"), Path(CT))]
    one, other, last = (Run(name, choice, digest, lymphcad.__version__) for name in ("one", "other", "last"))
    with dask_worker._scorer(one) as kept:
        first = score_here(Work(other, files))
        assert list(dask_worker._OPEN) == ["one", "other"]
        assert score_here(Work(other, files))[0].finding.probability == first[0].finding.probability
        assert dask_worker._OPEN["one"].scorer is kept
    score_here(Work(last, files))
    assert list(dask_worker._OPEN) == ["last"]


def test_an_image_that_a_worker_does_not_see(demo, table):
    run = Run("unseen", Choice(edge=Path(demo), runner="onnxruntime"), Bundle(Path(demo)).digest, lymphcad.__version__)
    found = score_here(Work(run, [(NodeRow(1, "x", 6.0, 7.0, "n"), table.parent / "x")]))
    assert [one.reason.partition(":")[0] for one in found] == ["file_missing"]


def test_a_worker_whose_servers_are_away(monkeypatch):
    monkeypatch.setattr(dask_worker, "_STOPPED", set())
    choice = Choice(servers=("grpc://127.0.0.1:1",), patience_s=0)
    files = [(NodeRow(number, CT, 60.0, 70.0, "n"), Path(CT)) for number in (1, 2)]
    away = Run("away", choice, "0" * 64, lymphcad.__version__)
    found = score_here(Work(away, files))
    assert [(one.node.line, one.status, one.reason.partition(":")[0]) for one in found] == [
        (1, "failed", "server_away"),
        (2, "failed", "server_away"),
    ]
    dask_worker.wait_no_longer_here("away")
    assert score_here(Work(replace(away, choice=replace(choice, patience_s=10_000)), files))[0].status == "failed"


@pytest.mark.server
def test_workers_that_ask_a_server(workers, serve_probe, probe_bundle, table, tmp_path):
    address = serve_probe("embedded")
    options = ("--server", address, "--no-overlays")
    assert run(table, tmp_path / "quiet", *options) == 3
    with Choice((address,), bundle=tmp_path / "the caller's alone").open(probe_bundle.digest) as opened:
        assert opened.digest == probe_bundle.digest
    process = start(table, tmp_path / "out", *options, "--bundle", probe_bundle.path, "--dask", workers.address)
    wait_for_nodes(process, tmp_path / "out", 1)
    os.kill(workers.worker_pids()[0], signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "quiet")


@pytest.mark.server
def test_stopped_while_no_server_answers_the_workers(workers, probe_bundle, table, tmp_path):
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    models, out = tmp_path / "models", tmp_path / "out"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    with Server(models, free_ports()) as server:
        process = start(
            table, out, "--server", server.address, "--no-overlays", "--dask", workers.address, "--patience", 10_000
        )
        wait_for_nodes(process, out, 64)
        os.killpg(server.pid, signal.SIGKILL)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"stopped after {journalled(out)} of 400 nodes" in error
    assert not journalled(out, "failed")
