from __future__ import annotations

import contextlib
import socket
import urllib.request

import numpy as np
import pytest
from lymphcad_client.edge.scorer import EdgeScorer
from lymphcad_client.metrics import Metrics, open_metrics
from lymphcad_client.observing import Observed, Observing
from prometheus_client.parser import text_string_to_metric_families

from lymphcad.bundle import Bundle
from lymphcad.cli import main
from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad.reference import Distribution, Reference


@pytest.fixture
def referred(probe_bundle, tmp_path):
    """Return the probe bundle with what a training cohort would have looked like."""
    import json
    import shutil

    generator = np.random.default_rng(0)
    reference = Reference(
        probability=Distribution.of(generator.uniform(0, 1, 500)),
        spacing_mm=Distribution.of([0.4, 0.5] * 50),
        window_hu=Distribution.of(generator.normal(50, 20, 500)),
    )
    shutil.copytree(probe_bundle.path, tmp_path / "referred")
    file = tmp_path / "referred" / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reference": reference.model_dump()}))
    return Bundle(tmp_path / "referred")


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


def test_what_was_scored_is_counted(referred, slice_of):
    port = free_port()
    with Observed(EdgeScorer(referred), [open_metrics(f"127.0.0.1:{port}")]) as scorer:
        for level in (-100, 50, 50, 240):
            scorer.score(slice_of(np.full((200, 200), level)), 100, 100)
        with pytest.raises(Refusal):
            scorer.score(slice_of(np.full((200, 200), 50)), 1000, 100)
        text = read(port)
    found = samples(text)
    assert found["lymphcad_nodes_total", ("reason", ""), ("status", "scored")] == 4
    assert found["lymphcad_nodes_total", ("reason", "node_outside_image"), ("status", "refused")] == 1
    assert found["lymphcad_nodes_total", ("reason", ""), ("status", "failed")] == 0
    assert (
        found["lymphcad_calls_total", ("call", "benign")] + found["lymphcad_calls_total", ("call", "metastatic")] == 4
    )
    assert found["lymphcad_calls_total", ("call", "metastatic")] >= 1
    assert found["lymphcad_probability_count",] == found["lymphcad_request_seconds_count",] == 4
    assert found["lymphcad_spacing_mm_bucket", ("le", "0.5")] == 4
    assert found["lymphcad_spacing_mm_bucket", ("le", "0.4")] == 0
    assert found["lymphcad_window_hu_bucket", ("le", "-50.0")] == 1
    assert found["lymphcad_window_hu_count",] == 4
    label = ("bundle", referred.label)
    observed = [found["lymphcad_observed_total", ("bin", str(number)), label, ("quantity", "window_hu")]
                for number in range(12)]  # fmt: skip
    assert (observed[0], sorted(observed[1:11])[-1], observed[11]) == (1, 2, 1)  # -100; 50 twice; 240
    assert sum(observed) == 4
    shares = {
        dict(key[1:])["bin"]: value
        for key, value in found.items()
        if key[0] == "lymphcad_reference_share" and ("quantity", "spacing_mm") in key and label in key
    }
    assert shares == {"0": 0, "1": 0.5, "2": 0.5, "3": 0}
    assert found["lymphcad_reference_nodes", label, ("quantity", "spacing_mm")] == 100
    assert found["lymphcad_bundle_info", ("architecture", "brightness"), label] == 1


def test_every_count_is_there_before_it_is_needed():
    """Or Prometheus would not see the first refusals of a kind."""
    value = Metrics().registry.get_sample_value
    for reason in Reason:
        for status in ("refused", "failed"):
            assert value("lymphcad_nodes_total", {"status": status, "reason": reason.value}) == 0
    assert value("lymphcad_nodes_total", {"status": "scored", "reason": ""}) == 0
    assert value("lymphcad_calls_total", {"call": "metastatic"}) == 0


def test_a_table_is_counted_with_its_refusals_and_nothing_of_a_patient_leaves(probe_bundle, tmp_path):
    """By the command, whose metrics go with it: they are read as its last node is done."""
    import subprocess
    import sys
    import time

    from pydicom.data import get_testdata_file

    ct = get_testdata_file("CT_small.dcm")
    table = tmp_path / "nodes.csv"
    table.write_text(
        "image,row,col,node\n" + f"{ct},64,64,Mrs Smith\n" * 400 + f"{ct},640,64,far\nabsent.dcm,1,1,gone\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "lymphcad", "score", "--nodes", table, "--out", tmp_path / "out", "--no-overlays"]
    command += ["--edge", probe_bundle.path, "--runner", "onnxruntime", "--metrics", f"127.0.0.1:{port}", "--jobs", 0]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = ""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            last = read(port)
        time.sleep(0.01)
    said = process.communicate()[0]
    assert process.returncode == 3, said
    found = samples(last)
    assert found["lymphcad_nodes_total", ("reason", ""), ("status", "scored")] > 0
    for secret in ("CT_small", "Smith", str(tmp_path), "1.3.6.1", "CompressedSamples"):
        assert secret not in last


def test_refusals_of_a_table(probe_bundle, tmp_path):
    from lymphcad_client.batch import score_many
    from pydicom.data import get_testdata_file

    from lymphcad.tables import NodeRow

    metrics = Metrics()
    ct = get_testdata_file("CT_small.dcm")
    rows = [NodeRow(1, ct, 64, 64, "a"), NodeRow(2, ct, 640, 64, "b"), NodeRow(3, "absent.dcm", 1, 1, "c")]
    with Observed(EdgeScorer(probe_bundle), [metrics]) as scorer:
        results = list(score_many(rows, scorer, base=tmp_path))
    assert [result.status for result in results] == ["scored", "refused", "refused"]
    value = metrics.registry.get_sample_value
    for code in ("node_outside_image", results[2].reason.partition(":")[0]):
        assert value("lymphcad_nodes_total", {"status": "refused", "reason": code}) == 1
    assert value("lymphcad_nodes_total", {"status": "scored", "reason": ""}) == 1


@pytest.mark.parametrize("address", ["9090", "127.0.0.1:", "127.0.0.1:x", ":9", "127.0.0.1:70000"])
def test_where_nothing_can_be_given_out(address):
    with pytest.raises(CommandError, match="write --metrics"):
        open_metrics(address)


def test_a_port_that_is_taken(probe_bundle, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CommandError, match="choose another port"):
            Observing(metrics=address).observe(EdgeScorer(probe_bundle), None)
        with pytest.raises(SystemExit) as ended:
            main(["dashboard", "--edge", str(probe_bundle.path), "--port", "0", "--no-open", "--metrics", address])
        assert ended.value.code == 2
        assert "choose another port" in capsys.readouterr().err


def test_options_that_go_together(capsys):
    with pytest.raises(CommandError, match="go together"):
        Observing(shadow="grpc://x:1").check()
    with pytest.raises(SystemExit) as ended:
        main(["score", __file__, "--node", "1,1", "--out", "o", "--dask", "tcp://x:1", "--metrics", "x:1"])
    assert ended.value.code == 2
    assert "leave one out" in capsys.readouterr().err


def test_a_refusal_that_cannot_be_noted_fails_its_node_and_no_other(probe_bundle, tmp_path):
    from lymphcad_client.batch import score_many
    from pydicom.data import get_testdata_file

    from lymphcad.errors import Reason, ServerError
    from lymphcad.tables import NodeRow

    class Full(Metrics):
        def saw(self, seen):
            if seen.window is None:
                raise ServerError(Reason.AUDIT_FAILED, "the disk is full")

    ct = get_testdata_file("CT_small.dcm")
    rows = [NodeRow(1, ct, 640, 64, "a"), NodeRow(2, ct, 64, 64, "b")]
    with Observed(EdgeScorer(probe_bundle), [Full()]) as scorer:
        results = list(score_many(rows, scorer, base=tmp_path))
    assert [(result.status, result.reason[:12]) for result in results] == [("failed", "audit_failed"), ("scored", "")]


def test_an_account_without_a_name_asks_by_its_number(monkeypatch):
    import getpass
    import os

    from lymphcad_client.observing import ASKING, asked_by

    assert asked_by() == getpass.getuser()

    def unnamed():
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", unnamed)
    assert asked_by() == f"user {os.getuid()}"
    token = ASKING.set("reader")
    assert asked_by() == "reader"
    ASKING.reset(token)
