"""A real Orthanc: what is sent is there, what is fetched is what was sent, and what goes wrong is said."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from orthanc import Orthanc, certificates, free_port, https_before

pytest.importorskip("highdicom")
pytest.importorskip("pynetdicom")

from lymphcad_client.pacs.address import DicomPeer, Speech, WebPeer, parse_peer
from lymphcad_client.pacs.sending import send_files
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lymphcad.cli import main
from lymphcad.errors import CommandError
from lymphcad.phantom.sample import sample_study

J2K = get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)
SLICES = 6


def run(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert int(ended.value.code or 0) == code, said
    assert "Traceback" not in said.err
    return said.out, said.err


def summary(capsys, *arguments, code=0):
    return json.loads(run(capsys, *arguments, "--json", code=code)[0])


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with Orthanc(tmp_path_factory.mktemp("pacs") / "orthanc") as one:
        yield one


@pytest.fixture
def study(tmp_path):
    """Return a folder with a few slices and a file that is no DICOM."""
    folder = tmp_path / "study"
    folder.mkdir()
    for file in sample_study(lambda _: None)[0][:SLICES]:
        (folder / file.name).write_bytes(file.data)
    (folder / "results.csv").write_text("a table")
    return folder


@pytest.fixture
def one(study):
    return dcmread(study / "0001.dcm")


def objects(folder):
    found = {str(dcmread(path).SOPInstanceUID): dcmread(path) for path in folder.glob("*.dcm")}
    assert len(found) == len(list(folder.iterdir()))
    return found


@pytest.mark.parametrize("way", ["dicom", "web"])
def test_sent_twice_and_there_once(orthanc, study, one, capsys, way):
    to = orthanc.address if way == "dicom" else orthanc.web
    for _ in range(2):
        found = summary(capsys, "send", study, "--to", to)
        assert found == {"n": SLICES, "stored": SLICES, "present": 0, "refused": 0, "failed": 0, "not_dicom": 1}
    ours = [instance for of, _, instance in orthanc.instances().values() if of == one.StudyInstanceUID]
    assert len(ours) == len(set(ours)) == SLICES


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_what_is_fetched_is_what_was_sent(orthanc, study, one, tmp_path, capsys, way):
    shutil.copy(J2K, study / "j2k.dcm")
    other = dcmread(study / "j2k.dcm")
    other.StudyInstanceUID = one.StudyInstanceUID
    other.save_as(study / "j2k.dcm")
    run(capsys, "send", study, "--to", orthanc.address)
    port = free_port()
    orthanc.request("PUT", "/modalities/us", {"AET": "US", "Host": "127.0.0.1", "Port": port, "AllowGet": True})
    options = ["--from", orthanc.web if way == "web" else orthanc.address]
    options += ["--calling-aet", "US", *(["--method", "move", "--move-port", port] if way == "move" else [])]
    out = tmp_path / "fetched"
    arguments = ("fetch", "--study", one.StudyInstanceUID, "--out", out, *options)
    assert summary(capsys, *arguments) == {"saved": SLICES + 1, "present": 0, "missing": 0, "refused": {}}
    assert summary(capsys, *arguments) == {"saved": 0, "present": SLICES + 1, "missing": 0, "refused": {}}
    (study / "results.csv").unlink()
    sent, fetched = objects(study), objects(out)
    assert sent.keys() == fetched.keys()
    for uid, expected in sent.items():
        assert fetched[uid] == expected
        assert fetched[uid].PixelData == expected.PixelData  # in its own transfer syntax
        assert fetched[uid].file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
    # One that is there and differs is not written over.
    path = next(out.glob("*.dcm"))
    changed = dcmread(path)
    changed.PatientName = "Another"
    changed.save_as(path)
    assert summary(capsys, *arguments, code=3)["refused"] == {"ambiguous_image": 1}
    assert dcmread(path).PatientName == "Another"


def test_a_folder_of_its_own(orthanc, study, one, tmp_path, capsys, monkeypatch):
    run(capsys, "send", study, "--to", orthanc.address)
    monkeypatch.chdir(tmp_path)
    said, _ = run(capsys, "fetch", "--study", one.StudyInstanceUID, "--from", orthanc.web)
    (out,) = tmp_path.glob("study-" + "[0-9a-f]" * 16)
    assert f"saved in {out.name}" in said
    assert list(out.iterdir())


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_no_such_study(orthanc, tmp_path, capsys, way):
    options = ["--from", orthanc.web if way == "web" else orthanc.address]
    options += ["--method", "move", "--move-port", free_port()] if way == "move" else []
    _, error = run(capsys, "fetch", "--study", "1.2.3", "--out", tmp_path / "out", *options, code=2)
    assert error.count("\n") == 1
    assert "check" in error
    assert not list((tmp_path / "out").iterdir())


def test_tls(study, one, tmp_path, capsys):
    safe = certificates(tmp_path / "certificates")
    with Orthanc(tmp_path / "orthanc", tls=safe) as orthanc, https_before(orthanc, tmp_path / "nginx") as web:
        ours = ("--tls-ca", safe / "ca.crt", "--tls-cert", safe / "us.crt", "--tls-key", safe / "us.key")
        for to in (orthanc.address, web):
            assert summary(capsys, "send", study, "--to", to, *ours)["stored"] == SLICES
        for number, source in enumerate((orthanc.address, web)):
            out = tmp_path / str(number)
            orthanc.request("PUT", "/modalities/us", {"AET": "LYMPHCAD", "Host": "127.0.0.1", "Port": 1})
            arguments = ("fetch", "--study", one.StudyInstanceUID, "--out", out, "--from", source, *ours)
            assert summary(capsys, *arguments)["saved"] == SLICES
        foreign = certificates(tmp_path / "foreign")
        for to in (orthanc.address, web):
            _, error = run(capsys, "send", study, "--to", to, *ours[2:], code=2)  # the system's authorities
            assert error.count("\n") == 1
            _, error = run(capsys, "send", study, "--to", to, "--tls-ca", foreign / "ca.crt", *ours[2:], code=2)
            assert "certificate" in error
        theirs = ("--tls-ca", safe / "ca.crt", "--tls-cert", foreign / "us.crt", "--tls-key", foreign / "us.key")
        for to in (orthanc.address, web):
            run(capsys, "send", study, "--to", to, *theirs, code=2)
        plain = orthanc.address.replace("dicom+tls", "dicom")
        run(capsys, "send", study, "--to", plain, "--timeout", 3, code=2)


def test_users_of_dicomweb(study, tmp_path, capsys, monkeypatch):
    with Orthanc(tmp_path / "orthanc", user="us:secret") as orthanc:
        _, error = run(capsys, "send", study, "--to", orthanc.web, code=2)
        assert "LYMPHCAD_PACS_USER" in error
        monkeypatch.setenv("LYMPHCAD_PACS_USER", "us")
        run(capsys, "send", study, "--to", orthanc.web, code=2)
        monkeypatch.setenv("LYMPHCAD_PACS_PASSWORD", "secret")
        assert summary(capsys, "send", study, "--to", orthanc.web)["stored"] == SLICES


@pytest.mark.parametrize("way", ["dicom", "web"])
def test_a_pacs_that_is_away_or_hangs(orthanc, study, capsys, way):
    nobody = f"dicom://A@127.0.0.1:{free_port()}" if way == "dicom" else f"http://127.0.0.1:{free_port()}/dicom-web"
    _, error = run(capsys, "send", study, "--to", nobody, code=2)
    assert "does not answer" in error
    orthanc.pause()
    try:
        to = orthanc.address if way == "dicom" else orthanc.web
        _, error = run(capsys, "send", study, "--to", to, "--timeout", 1, code=2)
        assert error.count("\n") == 1
    finally:
        orthanc.resume()


@pytest.mark.parametrize("way", ["dicom", "web"])
def test_one_that_dies_and_comes_back(study, tmp_path, way):
    with Orthanc(tmp_path / "orthanc") as orthanc:
        peer = parse_peer(orthanc.address if way == "dicom" else orthanc.web)
        sent = send_files(sorted(study.glob("*.dcm")), peer, Speech(timeout_s=5, tries=8))
        found = [next(sent).outcome]
        orthanc.process.kill()
        orthanc.process.wait()
        again = threading.Timer(1, orthanc.start)
        again.start()
        found += [one.outcome for one in sent]
        again.join()
        assert found == ["stored"] * SLICES
        assert len(orthanc.instances()) == SLICES


@pytest.mark.parametrize("way", ["dicom", "web"])
def test_one_that_dies_for_good(study, tmp_path, way):
    """What is left fails after the tries of one object, not of each."""
    with Orthanc(tmp_path / "orthanc") as orthanc:
        peer = parse_peer(orthanc.address if way == "dicom" else orthanc.web)
        sent = send_files(sorted(study.glob("*.dcm")), peer, Speech(timeout_s=5, tries=3))
        next(sent)
        orthanc.process.kill()
        orthanc.process.wait()
        began = time.monotonic()
        assert [(one.outcome, one.status) for one in sent] == [("failed", "unreachable")] * (SLICES - 1)
        assert time.monotonic() - began < 8


@pytest.mark.parametrize("way", ["dicom", "web"])
def test_a_full_one(study, tmp_path, way):
    with Orthanc(tmp_path / "orthanc", MaximumStorageSize=1) as orthanc:
        orthanc.put((study / "0001.dcm").read_bytes())
        (patient,) = orthanc.get("/patients")
        orthanc.request("PUT", f"/patients/{patient}/protected", b"1")
        peer = parse_peer(orthanc.address if way == "dicom" else orthanc.web)
        paths = [study / "0002.dcm", study / "0003.dcm", study / "0004.dcm"]
        found = list(send_files(paths, peer, Speech(tries=2)))
        assert {one.outcome for one in found[1:]} == {"failed"}
        assert {one.status for one in found[1:]} == {"0xA700" if way == "dicom" else "not_named"}
        orthanc.request("DELETE", f"/patients/{patient}")
        assert [one.outcome for one in send_files(paths[1:2], peer, Speech(tries=2))] == ["stored"]


def test_one_object_that_is_refused(study, tmp_path, capsys):
    """An Orthanc that takes no JPEG 2000: the others are stored."""
    shutil.copy(J2K, study / "j2k.dcm")
    (study / "bad.dcm").write_bytes((study / "0001.dcm").read_bytes()[:400])
    with Orthanc(tmp_path / "orthanc", AcceptedTransferSyntaxes=["1.2.840.10008.1.2.1"]) as orthanc:
        found = summary(capsys, "send", study, "--to", orthanc.address, code=3)
        assert (found["stored"], found["refused"], found["failed"]) == (SLICES, 2, 0)
        _, error = run(capsys, "send", study, "--to", orthanc.address, code=3)
        assert f"refused, no_context: {study / 'j2k.dcm'}" in error
        assert len(orthanc.instances()) == SLICES


def test_ctrl_c(orthanc, study):
    for number in range(200):
        shutil.copy(study / "0001.dcm", study / f"copy{number}.dcm")
    command = [sys.executable, "-m", "lymphcad", "send", str(study), "--to", orthanc.address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    if process.returncode:  # it may have been done by then
        assert process.returncode == 130
        assert error.startswith("lymphcad: stopped after ")
        assert error.count("\n") == 1


def test_addresses():
    assert parse_peer("dicom://A_B-1@pacs:104") == DicomPeer("A_B-1", "pacs", 104)
    assert parse_peer("dicom+tls://A@[::1]:2762/") == DicomPeer("A", "::1", 2762, tls=True)
    assert parse_peer("https://pacs/dicom-web/") == WebPeer("https://pacs/dicom-web")
    assert parse_peer("http://pacs:8042/dicom-web").is_open
    assert not parse_peer("http://127.0.0.1:8042/dicom-web").is_open
    assert not parse_peer("https://pacs/dicom-web").is_open


@pytest.mark.parametrize(
    "address",
    [
        "", "pacs", "dicom://", "dicom://pacs:104", "dicom://A@pacs", "dicom://A@pacs:x", "dicom://A@pacs:99999", "ftp://A@pacs:1",
        "dicom://@pacs:104", "dicom://12345678901234567@pacs:104", "dicom://A@pacs:104/x", "https://", "https://u:p@pacs/web",
        "https://pacs/web?x=1", "http://[::1/web",
    ],
)  # fmt: skip
def test_addresses_that_are_none(address, capsys):
    with pytest.raises(CommandError) as refused:
        parse_peer(address)
    assert "secret" not in str(refused.value)


def test_wrong_commands(study, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    to = ("--to", "dicom://A@127.0.0.1:1")
    for arguments, words in (
        (("send", study, "--to", "pacs"), "dicom://AET@host:104"),
        (("send", tmp_path / "nothing", *to), "there is no"),
        (("send", empty, *to), "no DICOM file"),
        (("send", study, *to, "--calling-aet", "x" * 17), "AE title"),
        (("send", study, *to, "--tls-cert", study / "0001.dcm"), "go together"),
        (("send", study, *to, "--tls-ca", tmp_path / "nothing"), "no file"),
        (("send", study, "--to", "dicom+tls://A@127.0.0.1:1", "--tls-ca", study / "results.csv"), "PEM"),
        (("fetch", "--study", "name", "--out", empty, "--from", "dicom://A@127.0.0.1:1"), "no UID"),
        (("fetch", "--study", "1.2", "--out", empty, "--from", "http://127.0.0.1:1/x", "--method", "move"), "--method"),
        (("fetch", "--study", "1.2", "--out", study / "0001.dcm", "--from", "dicom://A@127.0.0.1:1"), "cannot be made"),
    ):
        _, error = run(capsys, *arguments, code=2)
        assert words in error
        assert error.count("\n") == 1


def test_the_examples(orthanc, study, one, tmp_path, request):
    examples = request.config.rootpath / "client" / "examples"
    sent = [sys.executable, str(examples / "send_results.py"), str(study), orthanc.address]
    said = subprocess.run(sent, capture_output=True, text=True, check=True).stdout
    assert said.count("stored 0x0000") == SLICES
    fetched = [sys.executable, str(examples / "fetch_study.py"), orthanc.web, one.StudyInstanceUID, str(tmp_path / "f")]
    said = subprocess.run(fetched, capture_output=True, text=True, check=True).stdout
    assert said.endswith(f"{len(list((tmp_path / 'f').iterdir()))} saved, 0 missing, {{}} refused\n")
