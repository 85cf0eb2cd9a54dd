"""A real tritonserver with mutual TLS: who gets in, and who does not."""

from __future__ import annotations

import numpy as np
import pytest
from certificates import BOTH, NAME, Authority
from lymphcad_client.servers import Servers
from lymphcad_client.tls import Tls
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.certificates import ServerTls
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Listening, Ports, Server, free_ports

from lymphcad.cli import main
from lymphcad.errors import CommandError, Reason, ServerError

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tmp_path_factory, authority, probe_bundle):
    models = tmp_path_factory.mktemp("secure") / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    pair = authority.sign("server")
    with Server(models, free_ports(), listening=Listening(tls=ServerTls(pair.cert, pair.key, authority.ca))) as running:
        yield running


@pytest.fixture(scope="module")
def client(authority):
    pair = authority.sign("client", names=())
    return Tls(authority.ca, pair.cert, pair.key, NAME)


def refused(address, tls):
    with pytest.raises(ServerError) as caught:
        TritonScorer(address, tls=tls, timeout_s=5)
    assert caught.value.reason is Reason.SERVER_AWAY
    return str(caught.value)


def test_who_has_a_certificate_is_answered(server, client, slice_of, probe_bundle):
    ct = slice_of(np.full((200, 200), 50))
    with TritonScorer(server.address, tls=client) as one, Servers([server.address], tls=client) as several:
        assert one.digest == several.digest == probe_bundle.digest
        assert one.score(ct, 100, 100).probability == several.score(ct, 100, 100).probability


def test_who_has_none_is_not(server, authority):
    assert "--tls-cert" in refused(server.address, Tls(authority.ca, name=NAME))


def test_plain_text_is_not(server, client):
    refused(server.address.replace("grpcs://", "grpc://"), None)
    with pytest.raises(CommandError, match="is plain text"):
        TritonScorer(server.address.replace("grpcs://", "grpc://"), tls=client)


@pytest.mark.parametrize("days", [(-30, -1), (1, 30)], ids=["expired", "not yet valid"])
def test_a_certificate_out_of_its_time_is_not(server, authority, days):
    pair = authority.sign("late", names=(), days=days)
    assert "--tls-cert" in refused(server.address, Tls(authority.ca, pair.cert, pair.key, NAME))


def test_a_certificate_of_another_authority_is_not(server, authority, tmp_path):
    pair = Authority(tmp_path, "other").sign("client")
    assert "--tls-cert" in refused(server.address, Tls(authority.ca, pair.cert, pair.key, NAME))


def test_a_server_that_is_not_trusted_is_not_asked(server, client, tmp_path):
    stranger = Authority(tmp_path, "other")
    assert "not trusted" in refused(server.address, Tls(stranger.ca, client.cert, client.key, NAME))
    assert "not trusted" in refused(server.address, Tls(client.ca, client.cert, client.key, "other.test"))


def test_an_expired_server_is_not_trusted(authority, client, probe_bundle, tmp_path, monkeypatch):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    pair = authority.sign("expired", days=(-30, -1))
    files, ports = ServerTls(pair.cert, pair.key, authority.ca), free_ports()
    with pytest.raises(CommandError, match="renew it"):
        Server(models, ports, listening=Listening(tls=files))
    # One that expires while it runs is not started again, so its own check is left out here.
    monkeypatch.setattr(ServerTls, "of_itself", lambda _: client)
    with pytest.raises(ServerError, match="not trusted"):
        Server(models, ports, ready_s=3, listening=Listening(tls=files))


def test_certificates_that_no_server_can_use(authority, tmp_path):
    good, nameless = authority.sign("good"), authority.sign("nameless", names=())
    one_sided = authority.sign("one-sided", usages=BOTH[:1])
    text = tmp_path / "text"
    text.write_text("no certificate")
    for files, words in (
        (ServerTls(nameless.cert, nameless.key, authority.ca), "no DNS name"),
        (ServerTls(one_sided.cert, one_sided.key, authority.ca), "clientAuth"),
        (ServerTls(good.cert, nameless.key, authority.ca), "not that of the certificate"),
        (ServerTls(text, good.key, authority.ca), "no certificate in PEM"),
        (ServerTls(good.cert, text, authority.ca), "no private key"),
        (ServerTls(good.cert, good.key, tmp_path / "absent"), "cannot be read"),
    ):
        with pytest.raises(CommandError, match=words):
            Server(tmp_path, Ports(1, 2), listening=Listening(tls=files))
    for tls in (Tls(text), Tls(tmp_path / "absent"), Tls(authority.ca, good.cert)):
        with pytest.raises(CommandError, match=r"PEM|go together"):
            TritonScorer("grpcs://127.0.0.1:1", tls=tls)


def test_the_commands_take_them(server, client, probe_bundle, capsys):
    """By the name localhost, which the certificate has; the command line knows no other name than the address's."""
    address = server.address.replace("127.0.0.1", "localhost")
    options = ["--tls-ca", client.ca, "--tls-cert", client.cert, "--tls-key", client.key]
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(probe_bundle.path), "--server", address, *map(str, options)])
    assert not ended.value.code, capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(probe_bundle.path), "--server", address, *map(str, options[:2])])
    assert ended.value.code == 2
    assert "server_away" in capsys.readouterr().err
