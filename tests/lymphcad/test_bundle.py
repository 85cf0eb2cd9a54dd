from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lymphcad.bundle import Bundle, Tolerance
from lymphcad.cli import main
from lymphcad.errors import BundleError, CommandError
from lymphcad.golden import GoldenError, check_golden, read_golden, widened
from lymphcad.signature import SIGNATURE, read_private_key, read_public_key


def keys(folder, key=None):
    """Write a pair of keys; return their files."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    folder.mkdir()
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def copy(probe_bundle, tmp_path):
    return shutil.copytree(probe_bundle.path, tmp_path / "copy")


@pytest.fixture
def signed(copy, tmp_path):
    """Return a signed bundle and the public key."""
    private, public = keys(tmp_path / "keys")
    (copy / SIGNATURE).write_bytes(read_private_key(private).sign((copy / "bundle.json").read_bytes()))
    return copy, public


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_a_changed_byte_anywhere_is_found(signed):
    bundle, public = signed
    Bundle(bundle, public)
    files = sorted(bundle.iterdir())
    assert {"bundle.json", "bundle.sig", "golden.npz", "cnn.fp32.onnx", "edge.fp32.onnx"} < {
        file.name for file in files
    }
    for file in files:
        whole = file.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            flip(file, at)
            with pytest.raises(BundleError):
                Bundle(bundle, public)
            if file.name not in ("bundle.json", SIGNATURE):  # whose contents nothing but the signature covers
                with pytest.raises(BundleError, match=f"{file.name} in the bundle .* does not match"):
                    Bundle(bundle)
            file.write_bytes(whole)
        file.unlink()
        with pytest.raises(BundleError):
            Bundle(bundle, public)
        file.write_bytes(whole)
    Bundle(bundle, public)


def test_signatures_that_do_not_count(signed, tmp_path):
    bundle, _ = signed
    _, stranger = keys(tmp_path / "stranger")
    with pytest.raises(BundleError, match="not of this key or not of these contents"):
        Bundle(bundle, stranger)
    (bundle / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="is not signed, and --key asks for a signature"):
        Bundle(bundle, stranger)
    Bundle(bundle)


def test_keys_that_are_none(tmp_path):
    private, public = keys(tmp_path / "ed25519")
    other_private, other_public = keys(tmp_path / "p256", ec.generate_private_key(ec.SECP256R1()))
    for read, wrong in ((read_private_key, (public, other_private)), (read_public_key, (private, other_public))):
        for path in (*wrong, tmp_path / "none"):
            with pytest.raises(CommandError, match="openssl genpkey"):
                read(path)


def test_openssl_makes_the_keys_that_the_message_names(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: install openssl")
    private, public = tmp_path / "KEY", tmp_path / "PUB"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    read_public_key(public).verify(read_private_key(private).sign(b"x"), b"x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda value: value | {"format": 1}, "is of format 1, and this version reads 2"),
        (lambda value: value | {"precisions": []}, "precisions: .* export the bundle again"),
        (lambda value: value | {"precisions": ["fp32", "int8"]}, r"lists no cnn\.int8\.onnx"),
        (lambda value: value | {"files": {}}, r"lists no preprocess\.onnx"),
        (lambda value: value | {"files": value["files"] | {"../x": "0" * 64}}, "lacks its file '../x'"),
    ],
)
def test_manifests_that_are_refused(copy, change, expected):
    file = copy / "bundle.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(BundleError, match=expected):
        Bundle(copy)


def test_a_precision_that_it_lacks(probe_bundle):
    assert probe_bundle.cnn("fp32").is_file()
    with pytest.raises(BundleError, match="has its CNN in fp32, and int8 was asked for"):
        probe_bundle.cnn("int8")


@pytest.mark.parametrize(
    ("name", "change", "refused"),
    [
        ("PROBABILITY", 0.009, False),
        ("PROBABILITY", 0.011, True),
        ("PROBABILITY", float("nan"), True),
        ("HEATMAP", 2, False),
        ("HEATMAP", 4, True),
        ("LOGITS", 0.0, False),
        ("LOGITS", 5.0, True),
        ("MAPS", float("inf"), True),
    ],
)
def test_golden_outputs_that_are_off(probe_bundle, name, change, refused):
    golden = read_golden(probe_bundle, "fp32")
    tolerance = Tolerance(probability=0.01, heatmap=3.0, relative=0.02)
    found = {name: golden[name].astype(np.float64) + change}
    if refused:
        with pytest.raises(GoldenError, match=f"{name} of the golden inputs is off by"):
            check_golden(found, golden, tolerance, "an engine")
    else:
        check_golden(found, golden, tolerance, "an engine")


def test_a_golden_output_of_another_shape(probe_bundle):
    golden = read_golden(probe_bundle, "fp32")
    tolerance = probe_bundle.manifest.golden["fp32"]
    with pytest.raises(GoldenError, match=r"gives PROBABILITY as \[1, 1\]"):
        check_golden({"PROBABILITY": golden["PROBABILITY"][:1]}, golden, tolerance, "an engine")


def test_a_tolerance_holds_what_the_engines_differ_where_the_bundle_was_made(probe_bundle):
    golden = read_golden(probe_bundle, "fp32")
    least = Tolerance(probability=0.01, heatmap=3.0, relative=0.02)
    assert widened(least, golden, golden) == least
    other = {**golden, "HEATMAP": golden["HEATMAP"].astype(np.int16)}
    other["HEATMAP"][2] += 12  # one crop of four: verify looks at each
    wide = widened(least, other, golden)
    assert wide == least.model_copy(update={"heatmap": 24.0})
    check_golden({"HEATMAP": other["HEATMAP"][2:3]}, {"HEATMAP": golden["HEATMAP"][2:3]}, wide, "an engine")
    for name, field in (("PROBABILITY", "probability"), ("LOGITS", "relative"), ("MAPS", "relative")):
        wide = widened(least, {**golden, name: golden[name] * np.float32(1.5)}, golden)
        assert getattr(wide, field) > getattr(least, field)


def test_golden_inputs_show_nodes_and_no_patient(probe_bundle):
    golden = read_golden(probe_bundle, "fp32")
    assert golden["IMAGE"].dtype == np.int16
    assert golden["CROP"].shape == (4, 1, 64, 64)
    assert golden["CROP"].std(axis=(1, 2, 3)).min() > 0.05
    assert np.ptp(golden["LOGITS"][:, 1]) > 0


def test_verify_and_score_refuse_a_changed_bundle(copy, tmp_path, capsys):
    flip(copy / "cam.onnx", 100)
    for command, code in (
        (["verify", copy], 4),
        (["serve", "--bundle", copy], 2),
        (["repository", copy, tmp_path / "models"], 2),
        (["score", tmp_path, "--node", "1,1", "--out", tmp_path / "out", "--bundle", copy], 2),
    ):
        (tmp_path / "x.dcm").touch()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in command])
        assert ended.value.code == code
        said = capsys.readouterr().err
        assert said.startswith("lymphcad: cam.onnx in the bundle")
        assert len(said.splitlines()) == 1
