"""A study in a real Orthanc: its nodes from a report, scored on a real tritonserver, its results back in Orthanc."""

from __future__ import annotations

import csv
from io import BytesIO

import pytest

pytest.importorskip("highdicom")
pytest.importorskip("pynetdicom")

import highdicom
from listening import DEMO, file_bytes, marked_study
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from orthanc import Orthanc
from scoring import rows_of

from lymphcad.bundle import Bundle
from lymphcad.cli import main
from lymphcad.phantom.sample import STUDY_LABELS

SR, CAPTURE, MAP = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("88.34", "7", "30"))


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


@pytest.mark.server
@pytest.mark.parametrize("way", ["dicom", "web"])
def test_from_the_pacs_and_back(tmp_path, way):
    marked = marked_study()
    models, study, out = tmp_path / "models", tmp_path / "study", tmp_path / "out"
    write_repository(Bundle(DEMO), models, Target.EMBEDDED)
    with Orthanc(tmp_path / "orthanc") as orthanc, Server(models, free_ports()) as server:
        peer = orthanc.web if way == "web" else orthanc.address
        for one in (*marked.cts, marked.sr):
            orthanc.put(file_bytes(one))
        sent = orthanc.instances()
        orthanc.request("PUT", "/modalities/us", {"AET": "LYMPHCAD", "Host": "127.0.0.1", "Port": 1})
        run("fetch", "--from", peer, "--study", marked.uid, "--out", study)
        run("nodes", study, "--out", tmp_path / "nodes.csv")
        score = ("score", study, "--nodes", tmp_path / "nodes.csv", "--server", server.address, "--no-overlays")
        run(*score, "--out", out, "--dicom", "sr,sc,pm")
        for _ in range(2):
            run("send", out, "--to", peer)
        new = {name: of for name, of in orthanc.instances().items() if name not in sent}
        assert {study_uid for study_uid, _, _ in new.values()} == {marked.uid}
        kinds = [kind for _, kind, _ in new.values()]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {SR: 1, CAPTURE: 4, MAP: 4}
        (name,) = (name for name, (_, kind, _) in new.items() if kind == SR)
        report = highdicom.sr.srread(BytesIO(orthanc.file(name)))
        # What is in the PACS is what the table says, and the table what the demo bundle says of this phantom.
        rows = {row[3]: row for row in rows_of(out)}
        assert {node: row[7] == "metastatic" for node, row in rows.items()} == {
            k: bool(v) for k, v in STUDY_LABELS.items()
        }
        groups = report.content.get_planar_roi_measurement_groups()
        assert {group.tracking_identifier for group in groups} == set(rows)
        with (tmp_path / "nodes.csv").open() as file:
            asked = {row["node"]: row for row in csv.DictReader(file)}
        for group in groups:
            row = rows[group.tracking_identifier]
            (probability, _) = group.get_measurements()
            assert float(probability.value) == pytest.approx(float(row[6]), abs=1e-6)
            (ct,) = (ct for ct in marked.cts if ct.SOPInstanceUID == asked[row[3]]["image"])
            x, y, z = group.roi.value[0]
            row_mm, col_mm = map(float, ct.PixelSpacing)
            assert (y - ct.ImagePositionPatient[1]) / row_mm == pytest.approx(float(row[1]), abs=0.01)
            assert (x - ct.ImagePositionPatient[0]) / col_mm == pytest.approx(float(row[2]), abs=0.01)
            assert z == pytest.approx(float(ct.ImagePositionPatient[2]))
        # A study that is fetched again has our own report in it, which asks for nothing.
        again = tmp_path / "again"
        run("fetch", "--from", peer, "--study", marked.uid, "--out", again)
        run("nodes", again, "--out", tmp_path / "again.csv")
        assert (tmp_path / "again.csv").read_text() == (tmp_path / "nodes.csv").read_text()
