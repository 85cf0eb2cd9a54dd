"""Which plan a machine is given. None is built: what TensorRT would make stands here as a few bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lymphcad_export.plan.builders
import lymphcad_export.plan.publish
import pytest
from lymphcad_export.plan.build import Engine
from lymphcad_export.plan.builders import Builder
from lymphcad_export.plan.gpu import Gpu

from lymphcad.bundle import Bundle
from lymphcad.cli import main
from lymphcad.plan import Comparison, check_plan


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(Path(__file__).parents[2] / "bundles" / "lidc")


def plan(bundle, out, *options):
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(bundle.path), "--out", str(out), *options])
    return int(ended.value.code or 0)


@pytest.fixture
def machine(monkeypatch):
    """Let `lymphcad plan` find TensorRT and a GPU that are not here; yield what it finds, and its builds."""
    builds = []

    def build_engine(library, onnx, size, max_batch, *, capability, timing_cache):
        shapes = tuple((batch, 1, size, size) for batch in (1, 1, max_batch))
        builds.append(Engine(f"plan {len(builds)}".encode(), shapes, (), b"timing"))
        return builds[-1]

    monkeypatch.setattr(lymphcad_export.plan.publish, "build_engine", build_engine)
    found = {
        "builder": Builder(
            "tensorrt",
            None,
            "11.4.0.106",
            gpu=Gpu("NVIDIA L4", "8.9", "570.1"),
            compare=lambda _: Comparison(crops=4, probability_max=0.001, heatmap_mean=0.1),
        )
    }
    monkeypatch.setattr(lymphcad_export.plan.builders, "here", lambda _: found["builder"])
    return found, builds


def same(folder, other):
    return {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in other.iterdir()
    }


def test_a_plan_is_built_once_for_each_bundle_gpu_and_version(bundle, tmp_path, machine, capsys):
    found, builds = machine
    cache = tmp_path / "plans"

    def ask(node, *options):
        out = tmp_path / node / "current"
        assert plan(bundle, out, "--cache", str(cache), "--max-batch", "4", *options) == 0
        assert not list(out.parent.glob(".*"))
        return out, capsys.readouterr().err

    first, said = ask("one")
    assert f"cnn.plan is in {first}, built now by tensorrt 11.4.0.106 for NVIDIA L4" in said
    (kept,) = cache.iterdir()
    assert kept.name == f"{bundle.digest[:16]}-NVIDIA-L4-8.9-{found['builder'].version}-b4"
    second, said = ask("two")
    assert f"cnn.plan is in {second}, built earlier by" in said
    assert (len(builds), same(first, kept), same(second, kept)) == (1, True, True)
    # A container that starts again finds what its first start left.
    assert ask("two")[0] == second
    assert len(builds) == 1

    for other in (
        replace(found["builder"], gpu=Gpu("NVIDIA A10", "8.6", "570.1")),
        replace(found["builder"], version="99.1"),
    ):
        found["builder"] = other
        made, said = ask("two")
        assert "built now by" in said
        sidecar = check_plan(made / "cnn.plan", bundle.manifest)
        assert (sidecar.gpu, sidecar.version) == (other.gpu.name, other.version)
        assert ask("three")[1].startswith(f"cnn.plan is in {tmp_path / 'three' / 'current'}, built earlier")
    assert (len(builds), len(list(cache.iterdir()))) == (3, 3)
    assert same(first, kept)  # nobody's plan was replaced
    ask("one", "--max-batch", "8")
    assert len(builds) == 4


@pytest.mark.parametrize("name", ["cnn.plan", "cnn.plan.json"])
def test_a_damaged_plan_in_the_cache_is_built_again(bundle, tmp_path, machine, name):
    _, builds = machine
    cache, out = tmp_path / "plans", tmp_path / "out"
    words = ("--cache", str(cache), "--max-batch", "1")
    assert plan(bundle, out, *words) == 0
    (kept,) = cache.iterdir()
    (kept / name).write_bytes((kept / name).read_bytes()[:-7])
    assert plan(bundle, out, *words) == 0
    assert len(builds) == 2
    check_plan(out / "cnn.plan", bundle.manifest)
    assert same(out, kept)


def test_two_machines_that_build_the_same_keep_the_first(bundle, tmp_path, machine):
    found, builds = machine
    cache, real = tmp_path / "plans", found["builder"].compare

    def overtaken(engine):
        found["builder"] = replace(found["builder"], compare=real)
        assert plan(bundle, tmp_path / "fast", "--cache", str(cache), "--max-batch", "1") == 0
        return real(engine)

    found["builder"] = replace(found["builder"], compare=overtaken)
    assert plan(bundle, tmp_path / "slow", "--cache", str(cache), "--max-batch", "1") == 0
    assert len(builds) == 2
    (kept,) = cache.iterdir()
    assert same(tmp_path / "slow", kept)
    assert same(tmp_path / "fast", kept)


def test_what_is_no_plan_is_left_alone(bundle, tmp_path, machine, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    assert plan(bundle, out, "--cache", str(tmp_path / "plans")) == 2
    assert "has something else than a plan in it: name another folder" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["mine"]
    assert plan(bundle, tmp_path / "new", "--cache", str(out / "mine")) == 2
    assert "cannot be written (" in capsys.readouterr().err
    assert plan(bundle, out / "mine" / "new", "--cache", str(tmp_path / "plans")) == 2
    assert f"'{out / 'mine' / 'new'}' cannot be written (" in capsys.readouterr().err
    assert plan(bundle, tmp_path / "new", "--cache", str(tmp_path / "plans"), "--rtx", "sm86") == 2
    assert "--rtx builds for others: leave one out" in capsys.readouterr().err
