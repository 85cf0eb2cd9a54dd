"""A disk that is full, at each point at which it can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from lymphcad_client.watch.inbox import Inbox
from lymphcad_client.watch.outbox import Outbox
from lymphcad_client.watch.watcher import Watcher
from pydicom.data import get_testdata_file
from watching import place_of

from lymphcad.bundle import Bundle
from lymphcad.errors import CommandError
from lymphcad.finding import Finding

PAGE = 4096
CT = get_testdata_file("CT_small.dcm", download=False)


class Answers:
    about, digest, at_once = "Made for the test.", "0" * 64, 3

    def __init__(self, demo):
        self.manifest = demo.manifest

    def score_window(self, window):
        return Finding(place_of(window)[0] / 1000, "benign", 0.5, np.zeros((32, 32), np.uint8), "made@0")


@pytest.fixture(scope="module")
def scorer(request):
    return Answers(Bundle(request.config.rootpath / "bundles" / "demo"))


@pytest.fixture
def disk(tmp_path):
    """Return a folder on a disk of 100 pages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={100 * PAGE}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whoever looks at it for a moment is not waited for


def fill(disk, free):
    """Leave so many pages of a disk free."""
    filler = disk / ".filler"
    filler.unlink(missing_ok=True)
    found = os.statvfs(disk)
    filler.write_bytes(b"x" * (found.f_bavail * found.f_frsize - free * PAGE))
    assert os.statvfs(disk).f_bavail == free
    return filler


def drop(inbox, name, table):
    study = inbox / name
    study.mkdir(parents=True)
    shutil.copy(CT, study / "ct.dcm")
    (study / "nodes.csv").write_text(table)
    return study


def watch(inbox, outbox, scorer, **options):
    Watcher(Inbox(inbox), Outbox(outbox), scorer, lambda _: None, settle=0.0, **options).run(once=True)


def files_of(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("nodes", [200, 3])
def test_results_that_do_not_fit(disk, tmp_path, scorer, nodes):
    """From not a page to one less than they take, so that each file is once the one that does not fit."""
    inbox, pictures = tmp_path / "in", nodes == 3
    study = drop(inbox, "Doe", "image,row,col\n" + "ct.dcm,20,5\n" * nodes)
    before, room = files_of(study), os.statvfs(disk).f_bavail
    watch(inbox, disk, scorer, overlays=pictures)
    whole, taken = files_of(disk / "Doe"), room - os.statvfs(disk).f_bavail
    assert taken >= 5
    shutil.rmtree(disk / "Doe")
    shutil.move(inbox / "done" / "Doe", study)
    for free in range(taken):
        filler = fill(disk, free)
        with pytest.raises(CommandError, match="No space left on device") as error:
            watch(inbox, disk, scorer, overlays=pictures)
        assert "Doe" not in str(error.value)
        assert "\n" not in str(error.value)
        assert list(disk.iterdir()) == [filler]
        assert files_of(study) == before
    fill(disk, taken)
    watch(inbox, disk, scorer, overlays=pictures)
    assert files_of(disk / "Doe") == whole
    assert not study.exists()


def test_a_reason_that_does_not_fit(disk, tmp_path, scorer):
    inbox, outbox = disk / "in", tmp_path / "out"
    outbox.mkdir()
    study = drop(inbox, "Doe", "image,row\nct.dcm,1\n")
    before = files_of(study)
    filler = fill(disk, 0)
    with pytest.raises(CommandError, match="No space left on device") as error:
        watch(inbox, outbox, scorer)
    assert "Doe" not in str(error.value)
    assert files_of(study) == before
    filler.unlink()
    watch(inbox, outbox, scorer)
    assert (inbox / "refused" / "Doe" / "REFUSED.txt").read_text().count("\n") == 1


def test_the_command_ends_in_a_sentence(tmp_path, request):
    """No file grows beyond 3000 bytes, as on a full disk."""
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    study = drop(inbox, "Doe", "image,row,col\n" + "ct.dcm,20,5\n" * 120)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); import lymphcad.__main__"
    bundle = request.config.rootpath / "bundles" / "demo"
    options = ["--edge", bundle, "--out", outbox, "--runner", "onnxruntime", "--settle", "0", "--no-overlays"]
    command = [str(part) for part in (sys.executable, "-c", limited, "watch", inbox, *options)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"lymphcad: the folder of results '{outbox}' cannot be used (File too large)")
    assert "Doe" not in ended.stderr
    assert [path.name for path in outbox.iterdir()] == [".lymphcad-watch.lock"]
    assert files_of(study) == ["ct.dcm", "nodes.csv"]
