"""An object is saved whole or not at all, never written over, and acknowledged only then."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import re
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pydicom
import pytest
from annotating import copy_of, ct_series
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lymphcad_client.pacs.receiving import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH,
    DUPLICATE,
    OUT_OF_RESOURCES,
    STORED,
    TOO_LARGE,
    NotSaved,
    file_name,
    save,
)
from lymphcad_client.pacs.storage_node import STORAGE_CLASSES, TRANSFER_SYNTAXES, StorageNode, server_tls
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from lymphcad.errors import CommandError


def file_bytes(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def ct():
    return ct_series(1)[0]


def reencoded(ct, syntax):
    found = copy_of(ct)
    if syntax.is_compressed:
        found.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    else:
        found.file_meta.TransferSyntaxUID = syntax
    return file_bytes(found)


def status_of(*arguments, **options):
    with pytest.raises(NotSaved) as raised:
        save(*arguments, **options)
    return raised.value.status


def test_what_was_received_is_there_as_it_was(tmp_path, ct):
    contents = file_bytes(ct)
    saved = save(contents, tmp_path / "study")
    assert saved.is_new
    assert saved.path.read_bytes() == contents
    assert [path.name for path in (tmp_path / "study").iterdir()] == [file_name(ct.SOPInstanceUID)]
    assert (saved.identity.sop_instance, saved.identity.study) == (ct.SOPInstanceUID, ct.StudyInstanceUID)
    assert ct.SOPInstanceUID not in str(saved.path)


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, JPEG2000Lossless])
def test_the_same_again_changes_nothing(tmp_path, ct, syntax):
    first = save(file_bytes(ct), tmp_path)
    before = unchanging(first.path)
    again = save(file_bytes(ct) if syntax is None else reencoded(ct, syntax), tmp_path)
    assert not again.is_new
    assert unchanging(again.path) == before


def unchanging(path):
    """Return what reading a file does not change."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def test_other_file_meta_information_is_the_same_object(tmp_path, ct):
    save(file_bytes(ct), tmp_path)
    other = copy_of(ct)
    other.file_meta.ImplementationVersionName = "ANOTHER"
    assert file_bytes(other) != file_bytes(ct)
    assert not save(file_bytes(other), tmp_path).is_new


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize("change", ["pixels", "header"])
def test_another_object_with_the_same_uid_is_refused(tmp_path, ct, change, syntax):
    path = save(file_bytes(ct), tmp_path).path
    pixels = bytearray(ct.PixelData)
    pixels[100] ^= 1
    other = copy_of(ct, PixelData=bytes(pixels)) if change == "pixels" else copy_of(ct, PixelSpacing=[1, 1])
    assert status_of(reencoded(other, syntax), tmp_path) == DUPLICATE
    assert path.read_bytes() == file_bytes(ct)
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_objects_with_one_uid_at_once_one_is_saved(tmp_path, ct, monkeypatch):
    both_written, sync = threading.Barrier(2), os.fsync

    def wait(number):
        sync(number)
        if stat.S_ISREG(os.fstat(number).st_mode):
            both_written.wait(20)

    monkeypatch.setattr("os.fsync", wait)
    results = []

    def save_one(dataset):
        try:
            results.append(save(file_bytes(dataset), tmp_path).is_new)
        except NotSaved as error:
            results.append(error.status)

    threads = [threading.Thread(target=save_one, args=[one]) for one in (ct, copy_of(ct, PixelSpacing=[1, 1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [True, DUPLICATE]
    assert len(list(tmp_path.iterdir())) == 1


def lying(contents, tag, length):
    """Return a file whose explicit element has another 32-bit length; `tag` is followed by its VR."""
    at = contents.index(tag) + len(tag) + 2
    return contents[:at] + length.to_bytes(4, "little") + contents[at + 4 :]


PIXELS = b"\xe0\x7f\x10\x00OW"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda contents: contents[:-1],
        lambda contents: contents[:-700],
        lambda contents: contents[:400],
        lambda contents: lying(contents, PIXELS, 2**31),
        lambda contents: lying(contents, PIXELS, 12),
        lambda contents: contents.replace(b"DICM", b"DICX"),
        lambda _: b"",
    ],
    ids=["one byte less", "cut off", "header alone", "long", "short", "no DICOM", "nothing"],
)
def test_what_lies_about_its_length_is_refused(tmp_path, ct, spoil):
    # Nothing may follow the pixels, or the end would be theirs.
    contents = file_bytes(pydicom.dcmread(io.BytesIO(file_bytes(ct)), specific_tags=None))
    assert status_of(spoil(contents), tmp_path / "study") == CANNOT_UNDERSTAND
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_an_object_says_what_it_is(tmp_path, ct, keyword):
    other = copy_of(ct)
    del other[keyword]
    buffer = io.BytesIO()
    other.save_as(buffer)
    assert status_of(buffer.getvalue(), tmp_path) == CANNOT_UNDERSTAND


def test_an_object_is_what_was_announced(tmp_path, ct):
    contents = file_bytes(ct)
    assert status_of(contents, tmp_path, sop="1.2.3") == DOES_NOT_MATCH
    assert status_of(contents, tmp_path, sop_class="1.2.3") == DOES_NOT_MATCH
    assert not list(tmp_path.iterdir())
    assert save(contents, tmp_path, sop=ct.SOPInstanceUID, sop_class=ct.SOPClassUID).is_new


FULL = """
import resource, sys
from pathlib import Path
from lymphcad_client.pacs.receiving import NotSaved, save
contents = Path(sys.argv[1]).read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    save(contents, Path(sys.argv[2]))
except NotSaved as error:
    print(hex(error.status), error)
"""


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, ct):
    (tmp_path / "ct.dcm").write_bytes(file_bytes(ct))
    command = [sys.executable, "-c", FULL, str(tmp_path / "ct.dcm"), str(tmp_path / "in")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{OUT_OF_RESOURCES:#x} the object cannot be written (File too large)"), said
    assert not list((tmp_path / "in").iterdir())


class Events:
    """What a node has said."""

    def __init__(self):
        self.stored, self.refused, self.closed, self.rejected = [], [], [], 0

    def options(self):
        return {
            "on_stored": lambda _, saved: self.stored.append(saved),
            "on_refused": lambda _, error: self.refused.append(error.reason),
            "on_closed": self.closed.append,
            "on_rejected": self.reject,
        }

    def reject(self):
        self.rejected += 1


@pytest.fixture
def events():
    return Events()


def associate(port, *classes, aet="SENDER", syntaxes=(ExplicitVRLittleEndian,), **options):
    entity = AE(aet)
    for one in classes or (CTImageStorage, Verification):
        entity.add_requested_context(one, list(syntaxes))
    return entity.associate("127.0.0.1", port, **options)


def test_echo_and_store(tmp_path, ct, events):
    with StorageNode(0, "NODE", tmp_path, **events.options()) as node:
        sender = associate(node.port)
        assert sender.send_c_echo().Status == 0
        assert sender.send_c_store(ct).Status == 0
        assert sender.send_c_store(ct).Status == 0
        assert [saved.is_new for saved in events.stored] == [True, False]
        assert sender.send_c_store(copy_of(ct, PixelSpacing=[1, 1])).Status == DUPLICATE
        assert not events.closed
        sender.release()
        wait_for(lambda: events.closed)
    assert events.refused == ["ambiguous_image"]
    assert pydicom.dcmread(events.stored[0].path) == ct


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
    return found


def test_every_class_and_transfer_syntax_is_accepted(tmp_path):
    with StorageNode(0, "NODE", tmp_path) as node:
        sender = associate(node.port, *STORAGE_CLASSES)
        assert {context.abstract_syntax for context in sender.accepted_contexts} == set(STORAGE_CLASSES)
        sender.release()
        for syntax in TRANSFER_SYNTAXES:
            sender = associate(node.port, CTImageStorage, syntaxes=[syntax])
            assert sender.is_established
            sender.release()
        assert not associate(node.port, "1.2.840.10008.5.1.4.1.1.4").accepted_contexts  # MR


def test_the_documentation_lists_them():
    text = (Path(__file__).parents[3] / "docs" / "listen.md").read_text()
    assert set(re.findall(r"\| ([0-9.]+) \|$", text, re.MULTILINE)) == {Verification, *STORAGE_CLASSES}
    statuses = {int(code, 16) for code in re.findall(r"^\| ([0-9A-F]{4}) \|", text, re.MULTILINE)}
    assert statuses == {STORED, DUPLICATE, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND, TOO_LARGE}


def test_who_may_call(tmp_path, ct, events):
    with StorageNode(0, "NODE", tmp_path, allow=["FRIEND"], **events.options()) as node:
        assert associate(node.port, aet="STRANGER").is_rejected
        assert events.rejected == 1
        sender = associate(node.port, aet="FRIEND")
        assert sender.send_c_store(ct).Status == 0
        sender.release()


def test_too_many_at_once(tmp_path, ct):
    with StorageNode(0, "NODE", tmp_path, max_associations=1) as node:
        first = associate(node.port)
        assert associate(node.port).is_rejected
        assert first.send_c_store(ct).Status == 0
        first.release()


def test_an_object_that_is_too_large_is_refused_and_the_next_is_not(tmp_path, ct, events):
    large = copy_of(ct, SOPInstanceUID="1.2.3", Rows=1000, Columns=1000, PixelData=bytes(2_000_000))
    large.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    with StorageNode(0, "NODE", tmp_path, max_object_bytes=1_000_000, **events.options()) as node:
        sender = associate(node.port)
        assert sender.send_c_store(large).Status == TOO_LARGE
        assert sender.send_c_store(ct).Status == 0
        sender.release()
    assert events.refused == ["too_large"]
    assert [path.name for path in tmp_path.iterdir()] == [file_name(ct.SOPInstanceUID)]


def test_a_sender_that_announces_another_object(tmp_path, ct):
    other = copy_of(ct)
    with StorageNode(0, "NODE", tmp_path) as node:
        sender = associate(node.port)

        def announce(event):
            event.message.command_set.AffectedSOPInstanceUID = "1.2.3"

        sender.bind(evt.EVT_DIMSE_SENT, announce)
        status = sender.send_c_store(other).Status
        sender.abort()
    assert status == DOES_NOT_MATCH
    assert not list(tmp_path.iterdir())


RUBBISH = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x01\x00\xff\xff\xff\xff" + bytes(100),  # an association request of 4 GiB
    b"\x04\x00\x00\x00\x00\x0c" + bytes(12),
    b"\x01\x00\x00\x00\x00\x44" + bytes(68),
    b"",
]


def test_rubbish_on_the_port_keeps_nobody_from_sending(tmp_path, ct, capfd):
    with StorageNode(0, "NODE", tmp_path) as node:
        open_ones = []
        for rubbish in RUBBISH:
            one = socket.create_connection(("127.0.0.1", node.port))
            one.sendall(rubbish)
            open_ones.append(one)
        sender = associate(node.port)
        assert sender.send_c_store(ct).Status == 0
        sender.release()
        # What is no DICOM is cut off, at once; not what is silent as yet.
        for one in open_ones[:3]:
            one.settimeout(20)
            with contextlib.suppress(ConnectionError):
                while one.recv(1000):
                    pass
        for one in open_ones:
            one.close()
    assert "Traceback" not in "".join(capfd.readouterr())


def element(number, value):
    return struct.pack("<HHL", 0, number, len(value)) + value


@pytest.mark.parametrize(
    "command",
    [b"\xff" * 60, element(0x100, b"\x77\x77") + element(0x800, b"\1\1"), element(2, b"1.2\0")],
    ids=["rubbish", "unknown", "no command"],
)
def test_a_command_that_is_none_ends_its_association_and_what_came_before_is_there(
    tmp_path, ct, events, capfd, command
):
    with StorageNode(0, "NODE", tmp_path, **events.options()) as node:
        sender = associate(node.port)
        assert sender.send_c_store(ct).Status == 0
        message = struct.pack(">LBB", len(command) + 2, 1, 3) + command
        sender.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", len(message)) + message)
        wait_for(lambda: events.closed)
        wait_for(lambda: not sender.is_established)
    assert len(events.stored) == 1
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_silent_peer_is_cut_off(tmp_path):
    with (
        StorageNode(0, "NODE", tmp_path, idle_s=0.5) as node,
        socket.create_connection(("127.0.0.1", node.port)) as one,
    ):
        one.sendall(b"\x01\x00\x00\x00\x00\x44")  # and no more
        one.settimeout(20)
        assert one.recv(1000)[:1] in (b"", b"\x07")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Return a folder with two authorities, and a certificate and key of the node and of a sender by the first."""
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ca", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        write_pem(folder, authority, certificate(authority, key.public_key(), authority, key), key)
        if authority == "ca":
            for name in ("node", "sender"):
                own = ec.generate_private_key(ec.SECP256R1())
                write_pem(folder, name, certificate(name, own.public_key(), authority, key), own)
    return folder


def certificate(name, public_key, issuer, issuer_key):
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
    made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public_key)
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    return made.sign(issuer_key, hashes.SHA256())


def write_pem(folder, name, made, key):
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, *plain))


def sender_tls(folder, name=None):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_tls_with_and_without_a_certificate_of_the_sender(tmp_path, ct, certificates):
    tls = server_tls(certificates / "node.pem", certificates / "node.key", certificates / "ca.pem")
    with StorageNode(0, "NODE", tmp_path, tls=tls) as node:
        # One that says nothing keeps the others from nothing.
        with socket.create_connection(("127.0.0.1", node.port)):
            sender = associate(node.port, tls_args=(sender_tls(certificates, "sender"), "127.0.0.1"))
            assert sender.send_c_store(ct).Status == 0
            sender.release()
        assert not associate(node.port, tls_args=(sender_tls(certificates), "127.0.0.1")).is_established
        assert not associate(node.port, tls_args=(sender_tls(certificates, "other"), "127.0.0.1")).is_established
        assert not associate(node.port).is_established
    with StorageNode(0, "NODE", tmp_path, tls=server_tls(certificates / "node.pem", certificates / "node.key")) as node:
        sender = associate(node.port, tls_args=(sender_tls(certificates), "127.0.0.1"))
        assert sender.send_c_store(ct).Status == 0
        sender.release()


@pytest.mark.parametrize(("pem", "key"), [("none", "node"), ("node", "ca"), ("node.key", "node")])
def test_certificates_that_cannot_be_used(certificates, pem, key):
    with pytest.raises(CommandError, match="cannot be used"):
        server_tls(certificates / f"{pem}.pem", certificates / f"{key}.key")


def test_a_port_that_is_taken(tmp_path):
    with StorageNode(0, "NODE", tmp_path) as node, pytest.raises(CommandError, match="cannot be listened on"):
        StorageNode(node.port, "NODE", tmp_path).__enter__()


@pytest.mark.parametrize("title", ["", "SEVENTEEN LETTERS", "ä", "A\\B"])
def test_a_wrong_title(tmp_path, title):
    with pytest.raises(CommandError, match="AE title"):
        StorageNode(0, title, tmp_path)
