"""Bundles as versions beside each other: what each says it serves, which one is loaded, and the way back."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from lymphcad_serve.repository import STEPS, Target, write_repository
from lymphcad_serve.server import Server, free_ports
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.verify_served import verify_repository, verify_server
from lymphcad_serve.versions import pin, read_config, version_in_use, versions_of_repository

from lymphcad.cli import main
from lymphcad.errors import BundleError, CommandError, ServerError

CLUSTER = [Target.CPU, Target.EMBEDDED_STEPS]


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory, brightness):
    """Return a bundle of another crop size, so that nothing of one version fits the other."""
    from lymphcad_export.bundle import Meaning, export_bundle

    meaning = Meaning("other", "brightness", threshold=0.5, temperature=1.0, evidence_scale=1.0)
    window = {"field_of_view_mm": 30.0, "window_level_hu": 50.0, "window_width_hu": 400.0, "size": 96}
    return export_bundle(tmp_path_factory.mktemp("bundles") / "other", brightness, window, meaning)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.server
def test_each_version_is_served_and_the_way_back(probe_bundle, other_bundle, tmp_path, capsys):
    models = tmp_path / "models"
    assert write_repository(probe_bundle, models, Target.EMBEDDED_STEPS) == 1
    assert run("repository", other_bundle.path, models, "--target", "embedded-steps", "--add") == 0
    assert "--model-config-name=v2" in capsys.readouterr().out
    assert run("repository", models, "--pin", "2") == 0
    with Server(models, free_ports()) as server:
        verify_server(other_bundle, server.address)
        # What is on disk changes; what is loaded does not.
        assert run("repository", models, "--pin", "1") == 0
        verify_server(other_bundle, server.address)
    with Server(models, free_ports()) as server:
        verify_server(probe_bundle, server.address)


@pytest.mark.server
def test_a_version_that_is_not_in_use(probe_bundle, other_bundle, tmp_path):
    write_repository(probe_bundle, tmp_path, Target.EMBEDDED)
    write_repository(other_bundle, tmp_path, Target.EMBEDDED, add=True)
    with Server(tmp_path, free_ports(), version=2) as server:
        verify_server(other_bundle, server.address)


@pytest.mark.parametrize("target", CLUSTER)
def test_every_version_names_its_own_steps(probe_bundle, other_bundle, tmp_path, target):
    for number, bundle in enumerate([probe_bundle, other_bundle, probe_bundle], start=1):
        assert write_repository(bundle, tmp_path, target, add=number > 1) == number
        assert version_in_use(tmp_path) == 1
    for number, bundle in enumerate([probe_bundle, other_bundle, probe_bundle], start=1):
        ensemble = read_config(tmp_path, ENSEMBLE, f"configs/v{number}.pbtxt")
        assert [step.model_version for step in ensemble.ensemble_scheduling.step] == [number] * 3
        assert ensemble.parameters["bundle_sha256"].string_value == bundle.digest
        for model in (*STEPS, ENSEMBLE):
            config = read_config(tmp_path, model, f"configs/v{number}.pbtxt")
            assert list(config.version_policy.specific.versions) == [number]
        crop = read_config(tmp_path, "cnn", f"configs/v{number}.pbtxt").input[0]
        assert list(crop.dims) == [1, bundle.manifest.preprocess.size, bundle.manifest.preprocess.size]


def test_every_version_is_verified(probe_bundle, other_bundle, tmp_path, capsys):
    write_repository(probe_bundle, tmp_path, Target.EMBEDDED_STEPS)
    write_repository(other_bundle, tmp_path, Target.EMBEDDED_STEPS, add=True)
    found = verify_repository(tmp_path)
    assert found.label == probe_bundle.label
    assert found.golden == tuple(f"the model {model}, version {n}" for n in (1, 2) for model in (ENSEMBLE, *STEPS)[1:])
    pin(tmp_path, 2)
    assert verify_repository(tmp_path).label == other_bundle.label
    graph = tmp_path / "cam" / "1" / "cam.onnx"  # of the version that is not in use
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"cam/1/cam\.onnx in the repository .* is not of the bundle probe"):
        verify_repository(tmp_path)
    graph.write_bytes(whole)
    config = read_config(tmp_path, ENSEMBLE, "configs/v1.pbtxt")
    config.ensemble_scheduling.step[1].model_version = -1
    (tmp_path / ENSEMBLE / "configs" / "v1.pbtxt").write_text(text_format.MessageToString(config))
    with pytest.raises(BundleError, match=r"configs/v1\.pbtxt .* is not set to version 1 alone"):
        verify_repository(tmp_path)


@pytest.mark.server
def test_a_pin_that_was_cut_off_does_not_load(probe_bundle, other_bundle, tmp_path):
    write_repository(probe_bundle, tmp_path, Target.EMBEDDED_STEPS)
    write_repository(other_bundle, tmp_path, Target.EMBEDDED_STEPS, add=True)
    for model in STEPS[:2]:
        (tmp_path / model / "config.pbtxt").write_bytes((tmp_path / model / "configs" / "v2.pbtxt").read_bytes())
    with pytest.raises(BundleError, match="not set to one and the same"):
        version_in_use(tmp_path)
    with pytest.raises(ServerError):
        Server(tmp_path, free_ports())
    pin(tmp_path, 2)
    assert version_in_use(tmp_path) == 2


def test_a_version_whose_writing_was_cut_off_is_none(probe_bundle, tmp_path):
    write_repository(probe_bundle, tmp_path, Target.EMBEDDED_STEPS)
    (tmp_path / "cnn" / "2").mkdir()
    assert versions_of_repository(tmp_path) == [1]
    assert write_repository(probe_bundle, tmp_path, Target.EMBEDDED_STEPS, add=True) == 3
    assert versions_of_repository(tmp_path) == [1, 3]


def test_what_cannot_be_added_or_pinned(probe_bundle, tmp_path, capsys):
    with pytest.raises(CommandError, match="no repository with versions of ours"):
        write_repository(probe_bundle, tmp_path / "none", Target.EMBEDDED, add=True)
    assert not (tmp_path / "none").exists()
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    with pytest.raises(CommandError, match="was written for the target embedded"):
        write_repository(probe_bundle, models, Target.EMBEDDED_STEPS, add=True)
    for options, words in (
        ((models, "--pin", "2"), "has the versions 1, and version 2 was asked for"),
        ((tmp_path, "--pin", "1"), "has no version that is complete"),
        ((models, tmp_path, "--pin", "1"), "give its folder and nothing else"),
        ((probe_bundle.path,), "no folder for the repository was given"),
    ):
        assert run("repository", *options) == 2
        assert words in capsys.readouterr().err
    assert version_in_use(models) == 1
    assert not list(models.rglob("*.new"))
