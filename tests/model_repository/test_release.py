"""The release file and the balancer's configuration that comes of it; what they do is in tests/cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from balancers import needs_haproxy
from certificates import Authority
from lymphcad_serve.release import release as steps
from lymphcad_serve.release.addresses import read_address
from lymphcad_serve.release.balancer import check_config, reload
from lymphcad_serve.release.haproxy import LARGEST_MESSAGE, render
from lymphcad_serve.release.release import Group, Release, Served, new_release, read_release, write_release

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.cli import main
from lymphcad.errors import CommandError

OLD, NEW, NEWER = (Served(name=name, digest=digit * 64) for name, digit in (("old", "a"), ("new", "b"), ("newer", "c")))
A, B, C = (f"grpc://127.0.0.1:{port}" for port in (8001, 8011, 8021))
DEPLOYED = Path("deploy/balancer")


@pytest.fixture
def begun():
    return new_release(Group(bundle=OLD, servers=(A,)), "grpc://127.0.0.1:8443", "127.0.0.1:8404", None)


@pytest.fixture
def placed(begun):
    return steps.with_candidate(begun, NEW, (B,))


def promote(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["promote", *map(str, arguments)])
    return int(ended.value.code or 0)


def routes(release):
    return [line.strip() for line in render(release).splitlines() if "use_backend" in line or "default_backend" in line]


def test_a_share_then_all_then_back(begun, placed):
    assert routes(begun) == ["default_backend stable"]
    pinned = [
        f"use_backend stable if {{ req.hdr(lymphcad-bundle) {OLD.digest} }}",
        f"use_backend candidate if {{ req.hdr(lymphcad-bundle) {NEW.digest} }}",
        "use_backend stable if { req.hdr(lymphcad-bundle) -m found }",
    ]
    drawn = "use_backend candidate if {{ rand(10000) lt {} }} {{ nbsrv(candidate) gt 0 }}"
    assert routes(placed) == [*pinned, "default_backend stable"]
    assert routes(steps.with_share(placed, 2.5)) == [*pinned, drawn.format(250), "default_backend stable"]
    whole = steps.with_share(placed, 100)
    assert routes(whole)[3] == drawn.format(10000)
    finished = steps.finish(whole)
    assert (finished.stable, finished.candidate, finished.share) == (placed.candidate, placed.stable, 0)
    back = steps.back(finished)
    assert (back.stable, back.candidate, back.share, back.finished) == (placed.stable, placed.candidate, 0, False)
    assert [event.did for event in back.history] == ["begin", "candidate", "share", "finish", "back"]
    assert [event.stable for event in back.history] == [OLD.label, OLD.label, OLD.label, NEW.label, OLD.label]
    assert steps.back(steps.with_share(placed, 10)).share == 0
    # The next one takes the place of what was before, on its servers if no others are named.
    assert steps.with_candidate(finished, NEWER, ()).candidate == Group(bundle=NEWER, servers=(A,))
    assert steps.with_candidate(finished, NEWER, (C,)).candidate == Group(bundle=NEWER, servers=(C,))


def test_the_same_candidate_again_changes_its_servers_only(placed):
    shared = steps.with_share(placed, 5)
    assert steps.with_candidate(shared, NEW, ()) == shared
    assert steps.with_candidate(shared, NEW, (C,)).candidate == Group(bundle=NEW, servers=(C,))
    assert steps.with_candidate(shared, NEW, (C,)).share == 5


def test_where_a_client_goes_whose_bundle_no_group_is_known_to_have(placed):
    """What was deployed before the first release does not say which bundle it has: it gets those."""
    unknown = placed.model_copy(update={"stable": Group(bundle=None, servers=(A,))})
    assert routes(unknown)[1] == "use_backend stable if { req.hdr(lymphcad-bundle) -m found }"
    assert routes(steps.finish(unknown))[1] == "use_backend candidate if { req.hdr(lymphcad-bundle) -m found }"
    assert "tcp-check expect string bundle_sha256" in render(unknown)
    assert f"tcp-check expect string {NEW.digest}" in render(unknown)


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda at: steps.with_share(at.begun, 5), "no candidate that could have a share"),
        (lambda at: steps.finish(at.begun), "no candidate that could become stable"),
        (lambda at: steps.back(at.placed), "nothing to go back from"),
        (lambda at: steps.with_candidate(at.begun, NEW, ()), "no servers of the candidate"),
        (lambda at: steps.with_candidate(at.begun, OLD, (B,)), "is stable already"),
        (lambda at: steps.with_candidate(at.begun, NEW, (A,)), "a server stands twice"),
        (lambda at: steps.with_candidate(steps.with_share(at.placed, 1), NEWER, (C,)), "take it back"),
        (lambda at: steps.with_share(steps.finish(at.placed), 5), "no candidate that could have a share"),
        (lambda at: steps.finish(steps.finish(at.placed)), "no candidate that could become stable"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("grpc://10.0.0.1:1",)), "without TLS"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("grpcs://triton:1",)), "add --tls"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("grpc://x y:1",)), "is no address"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("http://127.0.0.1:1",)), "is no address"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("grpc://127.0.0.1:65536",)), "1 to 65535"),
        (lambda at: steps.with_candidate(at.begun, NEW, ("grpc://*:80",)), "is no address"),
        (lambda at: new_release(at.begun.stable, "grpc://*:8443", "*:8404", None), "without TLS"),
        (
            lambda _: new_release(Group(bundle=OLD, servers=("grpcs://10.0.0.1:1",)), A, "*:8404", "/tls"),
            "is an IP address",
        ),
        (
            lambda _: new_release(Group(bundle=OLD, servers=("grpcs://a:1", B)), A, "*:8404", "/tls"),
            "with TLS and without",
        ),
        (lambda at: new_release(at.begun.stable, A, "*:8404\n  stats", None), "is no HOST:PORT"),
        (lambda at: new_release(at.begun.stable, A, "*:8404", "/tls verify none"), "is no folder"),
    ],
)
def test_what_cannot_be(begun, placed, do, words):
    with pytest.raises(CommandError, match=words):
        do(SimpleNamespace(begun=begun, placed=placed))


@pytest.mark.parametrize(
    ("text", "host", "loopback"),
    [
        ("grpc://127.0.0.1:8001", "127.0.0.1", True),
        ("grpc://[::1]:8001", "[::1]", True),
        ("grpc://localhost:8001", "localhost", True),
        ("grpcs://triton-stable:8001", "triton-stable", False),
        ("grpcs://10.0.0.1:8001", "10.0.0.1", False),
    ],
)
def test_addresses(text, host, loopback):
    address = read_address(text)
    assert (address.host, address.port, address.is_loopback) == (host, 8001, loopback)
    assert address.secure == text.startswith("grpcs")


def test_a_file_is_read_back(placed, tmp_path):
    file = tmp_path / "release.json"
    write_release(steps.with_share(placed, 5), file)
    assert read_release(file) == steps.with_share(placed, 5).model_copy(update={"history": read_release(file).history})
    value = json.loads(file.read_text())
    for wrong, words in (
        (value | {"share": 101}, "share: Input should be less than"),
        (value | {"format": 2}, "format: Input should be 1"),
        (value | {"more": 1}, "more: Extra inputs"),
        ([], "Input should be"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(CommandError, match=f"no release file of this version: .*{words}"):
            read_release(file)
    file.write_text("{")
    with pytest.raises(CommandError, match="is not JSON"):
        read_release(file)
    with pytest.raises(CommandError, match="cannot be read"):
        read_release(tmp_path / "none.json")
    with pytest.raises(CommandError, match="cannot be written"):
        write_release(placed, file / "under" / "a.json")


def test_the_cluster_has_what_its_release_says(tmp_path, request):
    deployed = request.config.rootpath / DEPLOYED
    text = render(read_release(deployed / "release.json"))
    assert text == (deployed / "haproxy.cfg").read_text(), (
        "lymphcad promote deploy/balancer/release.json --out deploy/balancer/haproxy.cfg"
    )
    assert "${SERVICE_DOMAIN}" in text
    assert text.count("verify required") == 2
    assert 2 * 1024 * 1024 < LARGEST_MESSAGE < 3 * 1024 * 1024
    needs_haproxy()
    with pytest.raises(CommandError, match="HAProxy does not take this configuration"):
        check_config(text.replace("/tls/", f"{tmp_path}/"))  # no certificates there
    balancer_certificates(Authority(tmp_path), tmp_path)
    assert check_config(text.replace("/tls/", f"{tmp_path}/"))


def balancer_certificates(authority, folder, names=("balancer",)):
    """Lay a balancer's certificates out as cert-manager does."""
    pair = authority.sign("tls", names=names)
    assert (pair.cert.name, pair.key.name) == ("tls.crt", "tls.key")
    (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
    return pair


def test_haproxy_finds_nothing_to_warn_of(placed, tmp_path):
    needs_haproxy()
    for release in (placed, steps.with_share(placed, 50), steps.finish(placed)):
        file = tmp_path / "haproxy.cfg"
        file.write_text(render(release))
        said = subprocess.run(["haproxy", "-c", "-f", file], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        assert "WARNING" not in said.stderr


def test_the_command(probe_bundle, tmp_path, capsys):
    file, out = tmp_path / "release.json", tmp_path / "haproxy.cfg"
    on_loopback = ("--listen", "grpc://127.0.0.1:8443", "--metrics", "127.0.0.1:8404")
    assert promote(file, "--candidate", DEMO_BUNDLE, "--server", A, *on_loopback) == 0
    demo = Bundle(DEMO_BUNDLE)
    assert f"stable: {demo.label} on {A}" in capsys.readouterr().out
    new = ("--candidate", probe_bundle.path, "--server", B, "--server", C)
    assert promote(file, *new, "--share", "12.5", "--out", out) == 0
    said = capsys.readouterr().out
    assert f"candidate: {probe_bundle.label} on {B}, {C}, 12.5 % of the new clients" in said
    assert f"Written: {out}" in said
    assert out.read_text() == render(read_release(file))
    kept = file.read_bytes(), out.read_bytes()
    assert promote(file) == 0
    assert promote(file, "--json") == 0
    value = capsys.readouterr().out
    assert Release.model_validate_json(value[value.index("{") :]) == read_release(file)
    for wrong, words in (
        (("--finish", "--share", "5"), "each go alone"),
        (("--server", A), "go with --candidate"),
        (("--reload", "1"), "read what --out writes"),
        (("--candidate", probe_bundle.path, "--server", "grpc://127.0.0.1:70000"), "1 to 65535"),
        (("--candidate", tmp_path), "no bundle.json"),
        (("--listen", "grpc://*:1"), "without TLS"),
    ):
        assert promote(file, *wrong) == 2, wrong
        assert words in capsys.readouterr().err
    assert promote(tmp_path / "none.json", "--candidate", probe_bundle.path) == 2
    assert "needs a bundle and its servers" in capsys.readouterr().err
    assert (file.read_bytes(), out.read_bytes()) == kept
    assert promote(file, "--finish", "--out", out) == 0
    assert f"before: {demo.label}" in capsys.readouterr().out
    assert read_release(file).stable.bundle.digest == probe_bundle.digest
    assert promote(file, "--back") == 0
    assert read_release(file).stable.bundle.digest == demo.digest


def test_what_haproxy_does_not_take_is_not_written(placed, tmp_path, monkeypatch):
    needs_haproxy()
    file, out = tmp_path / "release.json", tmp_path / "haproxy.cfg"
    write_release(placed, file)
    kept = file.read_bytes()
    monkeypatch.setattr("lymphcad_serve.release.haproxy._HEAD", "global\n    no-such-word\n")
    assert promote(file, "--share", "5", "--out", out) == 2
    assert file.read_bytes() == kept
    assert not out.exists()


def test_a_server_that_does_not_answer_gets_no_share(placed, probe_bundle, tmp_path):
    file = tmp_path / "release.json"
    write_release(placed, file)
    kept = file.read_bytes()
    assert promote(file, "--candidate", probe_bundle.path, "--server", C, "--verify", "--share", "5") != 0
    assert file.read_bytes() == kept


def test_a_balancer_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match=r"command socket .* does not answer"):
        reload(str(tmp_path / "none.sock"))
    with pytest.raises(CommandError, match="as process 4194305"):
        reload("4194305")  # above the highest that Linux gives
