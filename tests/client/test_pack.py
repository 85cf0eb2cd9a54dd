"""`lymphcad edge-pack` without the other machine: what pip is asked for, and how the zip is written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZIP_STORED, ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lymphcad_client.pack import archive, wheels
from lymphcad_client.pack.archive import write_archive
from lymphcad_client.pack.install import last_line
from lymphcad_client.pack.wheels import needs, pins, requirement

from lymphcad.bundle import sha256
from lymphcad.cli import main
from lymphcad.errors import CommandError

DEMO = Path(__file__).parents[2] / "bundles" / "demo"


def pack(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["edge-pack", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def made_wheels(monkeypatch, tmp_path):
    """Put two files in the wheels' place, and return the extras that were asked for."""
    asked = []

    def collect(extra, folder):
        asked.append(extra)
        assert list(tmp_path.glob("out/*")) == [tmp_path / "out" / "pack.zip.part"]  # what a kill would leave
        names = ("lymphcad-0.1.0-py3-none-any.whl", "pip-25.0-py3-none-any.whl")
        for name in names:
            (folder / name).write_bytes(os.urandom(20_000))
        return [folder / name for name in names]

    monkeypatch.setattr(archive, "collect_wheels", collect)
    (tmp_path / "out").mkdir()
    return asked


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out" / "pack.zip"


def test_each_runner_has_its_extra(made_wheels, out, capsys):
    assert pack(DEMO, out) == 0
    said = capsys.readouterr().out
    assert f"{out} has 2 wheels and the bundle" in said
    assert "Research use only; not a medical device." in said
    with ZipFile(out) as zipped:
        names = {name.partition("/")[2] for name in zipped.namelist()}
        assert {name.partition("/")[0] for name in zipped.namelist()} == {"lymphcad-edge-demo"}
        assert {one.compress_type for one in zipped.infolist() if one.filename.endswith(".whl")} == {ZIP_STORED}
    assert {"README.txt", "constraints.txt", "install.py", "pack.json"} < names
    assert {name[7:] for name in names if name.startswith("bundle/")} == {file.name for file in DEMO.iterdir()}
    out.unlink()
    assert pack(DEMO, out, "--runner", "onnxruntime") == 0
    assert made_wheels == ["edge", "edge-min"]


def test_the_same_members_give_the_same_zip(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        wheel = tmp_path / name / "one.whl"
        wheel.write_bytes(b"1" * 5000)
        os.utime(wheel, (1e9 + number * 1e6,) * 2)
        wheel.chmod((0o600, 0o755)[number])
        members = [("x/one.whl", wheel), ("x/README.txt", b"read")]
        with (tmp_path / f"{name}.zip").open("wb") as file:
            write_archive(file, dict(reversed(members) if number else members))
    assert sha256(tmp_path / "a.zip") == sha256(tmp_path / "b.zip")


def test_a_file_that_exists_is_kept(made_wheels, out, capsys):
    out.write_text("mine")
    assert pack(DEMO, out) == 2
    assert capsys.readouterr().err == f"lymphcad: '{out}' exists: name a new file for the pack\n"
    assert out.read_text() == "mine"
    assert pack(DEMO, out.parent / "none" / "pack.zip") == 2
    assert "could not be written (No such file or directory): make room, or name" in capsys.readouterr().err
    assert not made_wheels


def test_a_full_disk_leaves_nothing(made_wheels, out, capsys):
    """No file may grow beyond 30,000 bytes, which is refused as a full disk is."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
    try:
        assert pack(DEMO, out) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert made_wheels == ["edge"]
    assert capsys.readouterr().err == (
        f"lymphcad: '{out}' could not be written (File too large): make room, or name another file\n"
    )
    assert not list(out.parent.iterdir())


def test_a_bundle_that_is_not_whole(made_wheels, out, tmp_path, capsys):
    folder = shutil.copytree(DEMO, tmp_path / "bundle")
    assert pack(folder, out, "--key", tmp_path / "none.pem") == 2
    assert "no Ed25519 public key" in capsys.readouterr().err
    (folder / "cam.onnx").write_bytes(b"changed")
    assert pack(folder, out) == 2
    assert "cam.onnx in the bundle" in capsys.readouterr().err
    shutil.copy(DEMO / "cam.onnx", folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    del manifest["files"]["edge.int8.onnx"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    assert pack(folder, out) == 2
    assert "int8 was asked for" in capsys.readouterr().err
    assert not made_wheels
    assert not list(out.parent.iterdir())


def test_a_signature_goes_with_its_bundle(made_wheels, out, tmp_path):
    folder, key = shutil.copytree(DEMO, tmp_path / "bundle"), Ed25519PrivateKey.generate()
    (folder / "bundle.sig").write_bytes(key.sign((folder / "bundle.json").read_bytes()))
    public = tmp_path / "key.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert pack(folder, out, "--key", public) == 0
    with ZipFile(out) as zipped:
        assert zipped.read("lymphcad-edge-demo/bundle/bundle.sig") == (folder / "bundle.sig").read_bytes()
        pack_json = json.loads(zipped.read("lymphcad-edge-demo/pack.json"))
    assert pack_json["files"]["bundle/bundle.sig"] == sha256(folder / "bundle.sig")


def test_pip_that_fails_is_said_in_one_sentence(out, tmp_path, monkeypatch, capsys):
    """No index and no folder: what builds `lymphcad` is not to be had."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    out.parent.mkdir()
    assert pack(DEMO, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("lymphcad: pip could not collect the wheels (No matching distribution found for ")
    assert error.endswith("PIP_INDEX_URL names, and pack again\n")
    assert error.count("\n") == 1
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)
    assert pack(DEMO, out) == 2
    assert "is not installed here: run `python -m ensurepip` first" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_stopped_it_leaves_nothing(out, tmp_path):
    """Neither a zip nor what pip had collected."""
    scratch = tmp_path / "scratch"
    for folder in (scratch, out.parent):
        folder.mkdir()
    # A pip that waits, and says with a file in its own temporary folder that it does.
    fake = "import os, pathlib, time; pathlib.Path(os.environ['TMPDIR'], 'here').touch(); time.sleep(60)"
    code = "import sys; sys.executable = sys.argv.pop(1); from lymphcad.cli import main; main()"
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{fake}\n")
    python.chmod(0o755)
    command = [sys.executable, "-c", code, str(python), "edge-pack", str(DEMO), str(out)]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE) as process:
        while not list(scratch.glob("*/here")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[1].decode() == f"lymphcad: stopped, and '{out}' was not written\n"
    assert process.returncode == 130
    assert not [*scratch.iterdir(), *out.parent.iterdir()]


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, ("lymphcad[edge] @ file:///a%20b", True)),
        ({"url": "file:///a/lymphcad-1.2-py3-none-any.whl", "archive_info": {}}, (None, False)),
        (
            {"url": "https://host/x", "vcs_info": {"vcs": "git", "commit_id": "12ab"}, "subdirectory": "y"},
            ("lymphcad[edge] @ git+https://host/x@12ab#subdirectory=y", True),
        ),
    ],
)
def test_what_is_packed_is_what_is_installed(monkeypatch, origin, wanted):
    monkeypatch.setattr(wheels, "distribution", lambda _: SimpleNamespace(read_text=lambda _: json.dumps(origin)))
    found = requirement("edge")
    assert found == (wanted[0] or f"lymphcad[edge] @ {origin['url']}", wanted[1])


def test_no_index_is_asked_for_lymphcad_itself(monkeypatch):
    """Whose package that would be is not known."""
    monkeypatch.setattr(wheels, "distribution", lambda _: SimpleNamespace(read_text=lambda _: None))
    with pytest.raises(CommandError, match="was not installed from its source or its wheel"):
        requirement("edge")


def test_pins_are_of_what_an_index_has(monkeypatch):
    installed = [
        ("NumPy", "1.26.4"),
        ("numpy", "2.0"),
        ("torch", "2.9+cpu"),
        ("lymphcad", "0.1.0"),
        ("a_b.c", "1"),
        (None, "1"),
    ]
    monkeypatch.setattr(
        wheels, "distributions", lambda: [SimpleNamespace(metadata={"Name": n}, version=v) for n, v in installed]
    )
    assert pins() == ["a-b-c==1", "numpy==1.26.4"]


def test_what_system_wheels_need():
    def of(*platforms):
        return needs([Path(f"a-1-py3-none-{platform}.whl") for platform in platforms])

    assert of("any") == ""
    assert of("win_amd64", "any") == ""
    assert of("any", "manylinux_2_9_x86_64", "manylinux2014_x86_64.manylinux_2_28_x86_64") == "2.17"
    assert of("manylinux_2_34_x86_64", "manylinux2014_x86_64") == "2.34"
    assert of("macosx_11_0_arm64", "macosx_10_13_universal2") == "11.0"


def test_the_line_that_says_what_is_wrong():
    assert last_line("WARNING: x\n  ERROR: why not.\nhint: y\nERROR: Failed to build 'a'\n[notice] pip\n") == "why not"
    assert last_line("Traceback\n  File\nOSError: full\n\n") == "OSError: full"
    assert last_line("lymphcad: it is so\n") == "it is so"
    assert last_line("") == "it said nothing"
