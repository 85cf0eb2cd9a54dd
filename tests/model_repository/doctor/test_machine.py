"""What the doctor says of machines: files as a kernel writes them, real ports, a driver's own words."""

from __future__ import annotations

import resource
import socket
import stat

import pytest
from lymphcad_serve.doctor.check import Status
from lymphcad_serve.doctor.gpu import Gpu, _by_nvidia_smi, check_gpu, check_tensorrt_plan, find_gpu
from lymphcad_serve.doctor.machine import check_cores, check_disks, check_files, check_memory, check_port
from lymphcad_serve.doctor.packages import check_engines, check_numpy, check_python, check_tritonserver, release_of
from lymphcad_serve.target import Target

from lymphcad.tensorrt_library import load


def written(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("quota", "status", "says"),
    [
        ("max 100000", Status.OK, None),
        ("150000 100000", Status.WARN, "1.5, by the limit of the container"),
        ("50000 100000", Status.WARN, "0.5, by the limit"),
        ("99900000 100000", Status.OK, None),
    ],
)
def test_cores(tmp_path, monkeypatch, quota, status, says):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    found = check_cores(written(tmp_path / "cgroup", cpu_max=f"{quota}\n"))
    assert found.status is status
    assert found.found == "4" if says is None else says in found.found
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    assert check_cores(tmp_path / "none").status is Status.WARN


def test_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemAvailable:    8388608 kB\n")
    assert check_memory(tmp_path / "none", meminfo).found == "8192 MB available"
    group = written(tmp_path / "cgroup", memory_max=f"{1 << 30}\n", memory_current=f"{512 << 20}\n")
    found = check_memory(group, meminfo)
    assert (found.status, found.found) == (Status.WARN, "512 MB available of the container's 1024")
    written(group, memory_max="max\n")
    assert check_memory(group, meminfo).status is Status.OK
    meminfo.write_text("MemAvailable:     524288 kB\n")
    assert check_memory(group, meminfo).status is Status.WARN
    assert check_memory(tmp_path / "none", tmp_path / "none").status is Status.SKIP


def test_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        found = check_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.status, found.found) == (Status.WARN, "at most 512")
    assert "ulimit -n" in found.todo


def test_disks(tmp_path, monkeypatch):
    def free(left):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": left << 20})())
        return {check.name: check for check in check_disks([tmp_path / "not" / "yet"])}

    plenty, short, full = free(5000), free(300), free(1)
    assert {check.status for check in plenty.values()} == {Status.OK}
    assert short["disk /dev/shm"].status is Status.OK
    mine = f"disk {tmp_path / 'not' / 'yet'}"
    assert short[mine].status is Status.WARN
    assert short[mine].found == "300 MB free"
    assert {check.status for check in full.values()} == {Status.FAIL}
    assert free(64)["disk /dev/shm"].status is Status.WARN  # what a container has


def test_a_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = check_port("grpc", port)
        assert (found.status, found.name) == (Status.FAIL, f"port {port}")
        assert "--grpc-port" in found.todo
    assert check_port("grpc", port).status is Status.OK


def test_packages(monkeypatch):
    assert check_python().status is Status.OK
    monkeypatch.setattr("sys.version_info", (3, 9, 1))
    assert check_python().status is Status.FAIL
    monkeypatch.undo()
    assert check_numpy(Target.EMBEDDED).status is Status.OK
    assert {check.status for check in check_engines(Target.CPU)} == {Status.OK}
    monkeypatch.setattr("lymphcad_serve.doctor.packages.version", lambda _: "2.1.0")
    assert check_numpy(Target.EMBEDDED).todo == "pip install 'numpy<2'"
    assert check_numpy(Target.GPU).status is Status.OK
    monkeypatch.setattr("lymphcad_serve.doctor.packages._version", lambda _: None)
    assert {check.status for check in check_engines(Target.EMBEDDED)} == {Status.FAIL}
    assert {check.status for check in check_engines(Target.GPU)} == {Status.SKIP}


def test_the_server_that_pip_installs_is_for_loopback(monkeypatch):
    pytest.importorskip("pytriton")
    monkeypatch.setenv("PATH", "/nowhere")
    assert check_tritonserver(Target.EMBEDDED).status is check_tritonserver(None).status is Status.OK
    assert check_tritonserver(Target.GPU).status is Status.FAIL
    monkeypatch.setattr("sys.version_info", (3, 99))
    found = check_tritonserver(Target.EMBEDDED)
    assert found.status is Status.FAIL
    assert "has no stub for Python 3.99" in found.found
    assert check_tritonserver(Target.CPU).status is Status.SKIP


@pytest.mark.parametrize(
    ("release", "status"), [("26.07", Status.OK), ("27.01", Status.OK), ("26.06", Status.FAIL), (None, Status.WARN)]
)
def test_a_server_on_path(tmp_path, monkeypatch, release, status):
    program(tmp_path / "tritonserver", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NVIDIA_TRITON_SERVER_VERSION", raising=False)
    if release is not None:
        monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", release)
    assert check_tritonserver(Target.GPU).status is status


def test_releases():
    assert release_of("26.07") == release_of("26.07-py3") == (26, 7)
    assert release_of("2.51.0") < (26, 7)
    assert release_of("") == release_of("main") == (0, 0)


def program(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_nvidia_smi(tmp_path, monkeypatch):
    """Its words as documented; none has been asked on the machine of these tests."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "neither nvidia-ml-py nor nvidia-smi" in _by_nvidia_smi()
    program(tmp_path / "nvidia-smi", "echo 'NVIDIA L4, 8.9, 570.86.15'\necho 'NVIDIA T4, 7.5, 570.86.15'")
    assert _by_nvidia_smi() == Gpu("NVIDIA L4", "8.9", "570.86.15")
    program(tmp_path / "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    assert _by_nvidia_smi() == "nvidia-smi finds no GPU (NVIDIA-SMI has failed: no driver)"


def test_a_gpu_is_missed_where_it_is_needed():
    assert check_gpu(Gpu("NVIDIA L4", "8.9", "570.1"), needed=True).status is Status.OK
    assert check_gpu("none", needed=False).status is Status.SKIP
    assert check_gpu("none", needed=True).status is Status.FAIL
    found = find_gpu()
    assert check_gpu(found, needed=False).status is (Status.OK if isinstance(found, Gpu) else Status.SKIP)


L4 = Gpu("NVIDIA L4", "8.9", "570.1")


def test_a_plan(half_bundle, probe_bundle, write_plan, tmp_path):
    plan = write_plan(half_bundle, tmp_path / "cnn.plan")
    found = list(check_tensorrt_plan(plan, half_bundle, L4))
    assert [check.status for check in found] == [Status.OK, Status.SKIP, Status.OK]
    assert found[1].todo == "Triton must have tensorrt 10.13.2.6"
    assert len(list(check_tensorrt_plan(plan, half_bundle, "no GPU"))) == 2
    *_, on_t4 = check_tensorrt_plan(plan, half_bundle, Gpu("Tesla T4", "7.5", "570.1"))
    assert on_t4.status is Status.FAIL
    assert "was built on NVIDIA L4, and this machine has Tesla T4" in on_t4.found
    (other,) = check_tensorrt_plan(plan, probe_bundle, L4)
    assert other.status is Status.FAIL
    assert "is not that of the bundle" in other.found
    plan.write_bytes(b"changed")
    (changed,) = check_tensorrt_plan(plan, half_bundle, L4)
    assert "was changed or damaged" in changed.found


def test_a_plan_of_another_version(half_bundle, write_plan, tmp_path):
    """Of TensorRT-RTX, whose library loads without a GPU: the check is the same."""
    pytest.importorskip("tensorrt_rtx")
    _, here = load("tensorrt_rtx")
    built = {"library": "tensorrt_rtx", "gpu": None}
    plan = write_plan(half_bundle, tmp_path / "right", version=here, **built)
    assert [one.status for one in check_tensorrt_plan(plan, half_bundle, "no GPU")] == [Status.OK, Status.OK]
    plan = write_plan(half_bundle, tmp_path / "wrong", version="1.4.0.1", **built)
    _, library = check_tensorrt_plan(plan, half_bundle, "no GPU")
    assert library.status is Status.FAIL
    assert f"was built by tensorrt_rtx 1.4.0.1, and this machine has {here}" in library.found
