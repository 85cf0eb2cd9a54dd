"""The real thing: what `lymphcad edge-pack` writes is installed and scores where there is no network."""

from __future__ import annotations

import ast
import csv
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from lymphcad_client.pack import install
from pydicom.data import get_testdata_file

from lymphcad.bundle import Bundle, sha256
from lymphcad.cli import main

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "bundles" / "demo"
BARE = [str(Path(sys.executable).resolve()), "-I"]  # of this environment, the Python only

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Yield where packs and installations lie, half a gigabyte each; nothing of them stays."""
    path = tmp_path_factory.mktemp("edge pack")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def unzipped(folder) -> Path:
    with pytest.raises(SystemExit) as ended:
        main(["edge-pack", str(DEMO), str(folder / "pack.zip")])
    assert not ended.value.code
    with ZipFile(folder / "pack.zip") as zipped:
        zipped.extractall(folder)
    (folder / "pack.zip").unlink()
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """Return the words before a command that take its network away."""
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        why = "no network namespace can be made: install util-linux (unshare), and allow user namespaces or be root"
        if "CI" in os.environ:
            pytest.fail(why)
        pytest.skip(why)
    # The proof that there is none: neither another machine nor this one can be reached.
    code = "import socket, sys; socket.create_connection((sys.argv[1], 9), 5)"
    for address in ("192.0.2.1", "127.0.0.1"):
        done = subprocess.run([*words, *BARE, "-c", code, address], capture_output=True, text=True)
        assert "Network is unreachable" in done.stderr
    return words


@pytest.fixture
def other(unzipped, folder, tmp_path):
    """Return a copy of the pack to change; its files are linked, so one is taken away before it is written anew."""
    copy = shutil.copytree(unzipped, folder / tmp_path.name, copy_function=os.link)
    yield copy
    shutil.rmtree(copy)


def rewrite(top: Path, name: str, content: bytes) -> None:
    (top / name).unlink(missing_ok=True)
    (top / name).write_bytes(content)


def change(top: Path, **fields: object) -> None:
    pack = json.loads((top / "pack.json").read_text())
    rewrite(top, "pack.json", json.dumps(pack | fields).encode())


def refusal(top: Path, *arguments: str, **options) -> str:
    """Return the sentence of an installation that is refused and leaves nothing."""
    before = set(top.iterdir())
    done = subprocess.run([*BARE, str(top / "install.py"), *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("install.py: ")
    assert set(top.iterdir()) == before
    return done.stderr.removeprefix("install.py: ").strip()


@pytest.mark.parametrize("extra", ["edge", "edge-min"])
def test_it_scores_where_there_is_no_network(other, offline, extra, tmp_path):
    change(other, requirement=f"lymphcad[{extra}]=={version('lymphcad')}")
    target, trap = tmp_path / "target", tmp_path / "trap" / "lymphcad"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise SystemExit('imported from PYTHONPATH')")
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # Neither pip's own settings nor other packages of this machine's come between.
    environment = clean | {"PYTHONPATH": str(trap.parent), "PIP_REQUIRE_HASHES": "1", "PIP_TARGET": str(target)}
    words = [*offline, *BARE[:1], str(other / "install.py"), "here it is"]
    done = subprocess.run(words, env=environment, cwd=other, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{Bundle(DEMO).label}: " in done.stdout
    assert "edge.int8.onnx in onnxruntime" in done.stdout
    assert ("edge.int8.onnx in openvino" in done.stdout) == (extra == "edge")
    assert not target.exists()
    assert not (tmp_path / "cache").exists()

    image, command = get_testdata_file("CT_small.dcm"), shlex.split(done.stdout.splitlines()[-1])
    assert command[0] == str(other / "here it is" / "bin" / "lymphcad")
    words = [{"IMAGE": image, "ROW,COL": "60,70"}.get(word, word) for word in command]
    scored = subprocess.run([*offline, *words], env=clean, cwd=tmp_path, capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
    with (tmp_path / "results" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["bundle"]) == ("scored", Bundle(DEMO).label)
    # It is the machine that packed, with the same versions.
    runner = {"edge": "openvino", "edge-min": "onnxruntime"}[extra]
    arguments = ["score", str(image), "--node", "60,70", "--edge", str(DEMO), "--runner", runner]
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path / "ours")])
    with (tmp_path / "ours" / "results.csv").open(newline="") as file:
        (ours,) = csv.DictReader(file)
    assert float(row["probability"]) == pytest.approx(float(ours["probability"]), abs=1e-5)


def test_what_is_in_it(unzipped):
    readme = (unzipped / "README.txt").read_text()
    assert len(readme.splitlines()) == 10
    assert "Research use only; not a medical device" in readme
    pack = json.loads((unzipped / "pack.json").read_text())
    assert pack["requirement"] == f"lymphcad[edge]=={version('lymphcad')}"
    assert all(pack[name] == value for name, value in install.this_machine().items())
    files = {path.relative_to(unzipped).as_posix() for path in unzipped.rglob("*") if path.is_file()}
    assert files == {*pack["files"], "pack.json", "install.py", "README.txt"}
    assert all(sha256(unzipped / name) == digest for name, digest in pack["files"].items())
    pinned = [line.split("==") for line in (unzipped / "constraints.txt").read_text().splitlines()]
    assert {"openvino", "onnxruntime", "numpy", "pip"} < {name for name, _ in pinned}
    assert {name: version(name) for name, _ in pinned} == dict(pinned)
    for name in ("pack.json", "README.txt", "constraints.txt"):
        assert str(ROOT) not in (unzipped / name).read_text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"python": "3.9"}, "and the wheels were packed for 3.9: run install.py with such a Python, or pack again"),
        (
            {"implementation": "pypy"},
            "the implementation of this Python is cpython, and the wheels were packed for pypy",
        ),
        ({"platform": "win-amd64"}, "and the wheels were packed for win-amd64"),
        ({"needs": "99.1"}, ", and the wheels need 99.1: install on a newer system"),
        ({"format": 2}, "pack.json is of format 2, and this script reads 1"),
    ],
)
def test_another_machine(other, fields, words):
    change(other, **fields)
    assert words in refusal(other)


def test_a_file_that_was_changed(other, unzipped):
    wheel = next(path.name for path in (other / "wheels").glob("rich-*"))
    for name in (f"wheels/{wheel}", "bundle/cam.onnx", "constraints.txt"):
        content = (other / name).read_bytes()
        rewrite(other, name, content[:-1] + bytes([content[-1] ^ 1]))
        assert refusal(other).startswith(f"{name} does not have the SHA-256 that pack.json says, so it was changed: ")
        (other / name).unlink()
        assert refusal(other).startswith(f"{name} is missing or cannot be read: ")
        rewrite(other, name, content)
    newer = other / "wheels" / "rich-999-py3-none-any.whl"
    newer.touch()
    assert refusal(other).startswith(f"wheels/{newer.name} is not in pack.json")
    newer.unlink()
    for content in (b"{", b"[]", b"{}"):
        rewrite(other, "pack.json", content)
        assert refusal(other).startswith("there is no readable pack.json beside this script: ")


def test_a_folder_that_exists_is_kept(other):
    for name in ("lymphcad", "mine"):
        (other / name).mkdir()
        assert refusal(other, *([name] if name == "mine" else []), cwd=other).startswith(f"'{other / name}' exists: ")
    assert "cannot be made (No such file or directory)" in refusal(other, "none/here", cwd=other)


def test_what_fails_half_way_leaves_nothing(other):
    change(other, requirement="lymphcad[edge]==99")
    assert refusal(other).startswith("pip could not install the wheels (No matching distribution found for lymphcad")
    change(other, requirement=f"numpy=={version('numpy')}")  # one package is enough to fail with
    limit = (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    said = refusal(other, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))  # as a full disk does
    assert "File too large" in said
    change(other, requirement=f"rich=={version('rich')}")
    said = refusal(other)
    assert said.startswith("`lymphcad verify` did not pass on this machine (")
    assert "No module named lymphcad" in said


def test_stopped_it_leaves_nothing(other):
    """And killed, nothing that scores."""
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
        made = other / "lymphcad"
        with subprocess.Popen([*BARE, str(other / "install.py")], stdout=subprocess.DEVNULL) as process:
            while not (made / "bin").exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
        assert process.returncode == code
        assert made.exists() == (number == signal.SIGKILL)
    assert not (made / "bundle").exists()


def test_the_script_runs_on_a_bare_and_an_old_python():
    source = Path(install.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    lines = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name
        for node in lines
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
    done = subprocess.run([*BARE, install.__file__, "--help"], capture_output=True, text=True, check=True)
    assert "Research use only; not a medical device" in done.stdout
