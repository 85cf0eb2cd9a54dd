"""What the balancer does not let through to a server, with the cluster's own configuration: mutual TLS and DNS."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import grpc
import numpy as np
import pytest
from balancers import Balancer, free_port, needs_haproxy
from certificates import Authority
from lymphcad_client.tls import Tls
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.certificates import ServerTls
from lymphcad_serve.release.haproxy import LARGEST_MESSAGE
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Listening, Server, free_ports
from processes import wait_until
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lymphcad.errors import Reason, ServerError
from lymphcad.geometry import Window

pytestmark = pytest.mark.server
WINDOW = Window(np.full((128, 128), 60, np.int16), (64.0, 64.0), (0.5, 0.5))
SERVICE, DOMAIN = "triton-stable", ".lymphcad.svc.cluster.local"


class Names:
    """A DNS server that knows one name (RFC 1035), whose addresses a test changes."""

    def __init__(self, name):
        self.addresses, self._name = [], name
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._socket.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                query, who = self._socket.recvfrom(4096)
                labels, at = [], 12
                while query[at]:
                    labels.append(query[at + 1 : at + 1 + query[at]].decode())
                    at += 1 + query[at]
                kind = struct.unpack_from(">H", query, at + 1)[0]
                known = ".".join(labels) == self._name
                found = [socket.inet_aton(one) for one in self.addresses] if known and kind == 1 else []
                answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + one for one in found)
                flags = 0x8400 if known else 0x8403
                head = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
                self._socket.sendto(head + query[12 : at + 5] + answers, who)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, probe_bundle, request):
    """Yield a client's certificates, the balancer, its address, the port of its servers, and what DNS says of them."""
    needs_haproxy()
    folder = tmp_path_factory.mktemp("deployed")
    authority = Authority(folder)
    authority.sign("tls", names=("balancer",))
    (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
    of_server, of_client = authority.sign("server", names=(SERVICE,)), authority.sign("client", names=())
    write_repository(probe_bundle, folder / "models", Target.EMBEDDED)
    listening = Listening(tls=ServerTls(of_server.cert, of_server.key, authority.ca))
    ports, port, metrics = free_ports(), free_port(), f"127.0.0.1:{free_port()}"
    text = (request.config.rootpath / "deploy" / "balancer" / "haproxy.cfg").read_text()
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(contextlib.closing(Names(SERVICE + DOMAIN)))
        for old, new in (
            ("bind *:8443", f"bind 127.0.0.1:{port}"),
            ("bind *:8404", f"bind {metrics}"),
            (":8001", f":{ports.grpc}"),
            ("/tls/", f"{folder}/"),
            ("parse-resolv-conf", f"nameserver test 127.0.0.1:{names.port}"),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / "haproxy.cfg").write_text(text)
        stack.enter_context(Server(folder / "models", ports, listening=listening))
        names.addresses = ["127.0.0.1"]
        balancer = stack.enter_context(Balancer(folder / "haproxy.cfg", metrics, SERVICE_DOMAIN=DOMAIN))
        balancer.wait_for(**{"stable1-1": True})
        tls = Tls(authority.ca, of_client.cert, of_client.key, "balancer")
        yield authority, tls, balancer, f"127.0.0.1:{port}", names


@pytest.fixture
def stub(deployed):
    _, tls, _, address, _ = deployed
    files = (file.read_bytes() for file in (tls.ca, tls.key, tls.cert))
    options = [("grpc.ssl_target_name_override", "balancer")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options) as channel:
        yield GRPCInferenceServiceStub(channel)


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code()


def test_the_clusters_configuration_with_mutual_tls(deployed, probe_bundle):
    authority, tls, _, address, _ = deployed
    with TritonScorer(f"grpcs://{address}", tls=tls) as scorer:
        assert scorer.digest == probe_bundle.digest
        assert scorer.score_window(WINDOW).probability > 0
        assert not scorer._shares_memory
    nobody, other = Tls(tls.ca, name="balancer"), Authority(authority.ca.parent, "other").sign("stranger")
    stranger = Tls(tls.ca, other.cert, other.key, "balancer")
    old = authority.sign("expired", names=(), days=(-20, -10))
    for who in (nobody, stranger, Tls(tls.ca, old.cert, old.key, "balancer")):
        with pytest.raises(ServerError) as caught:
            TritonScorer(f"grpcs://{address}", tls=who, timeout_s=5)
        assert caught.value.reason is Reason.SERVER_AWAY
    with pytest.raises(ServerError) as caught:
        TritonScorer(f"grpc://{address}", timeout_s=5)
    assert caught.value.reason is Reason.SERVER_AWAY


def test_a_server_with_the_certificate_of_another_name_is_not_used(deployed, tmp_path):
    _, _, balancer, address, _ = deployed
    assert wait_until(lambda: balancer.found("stable1-1") == "L7OK")
    metrics, config = f"127.0.0.1:{free_port()}", tmp_path / "haproxy.cfg"
    text = balancer.config.read_text().replace(address, f"127.0.0.1:{free_port()}").replace(balancer.metrics, metrics)
    for option in ("verifyhost triton-stable", "str(triton-stable)", "check-sni triton-stable"):
        assert option in text
        text = text.replace(option, option.replace("stable", "candidate"))
    config.write_text(text)
    with Balancer(config, metrics, SERVICE_DOMAIN=DOMAIN) as other:
        assert wait_until(lambda: other.found("stable1-1") == "L6RSP")
        assert other.ask("/ready") == 503


def test_servers_come_and_go_by_dns(deployed):
    _, tls, balancer, address, names = deployed
    names.addresses = ["127.0.0.2", "127.0.0.1"]  # nothing listens on the second one
    assert wait_until(lambda: sum(balancer.servers().values()) == 1 and len(balancer.servers()) == 16)
    with TritonScorer(f"grpcs://{address}", tls=tls) as scorer:
        for _ in range(20):
            scorer.score_window(WINDOW)
    names.addresses = ["127.0.0.2"]
    assert wait_until(lambda: balancer.ask("/ready") == 503)
    names.addresses = ["127.0.0.1"]
    assert wait_until(lambda: balancer.ask("/ready") == 200)
    assert balancer.ask("/anything") == 404


def test_only_what_clients_ask(stub):
    name = messages.ModelConfigRequest(name="lymph_node")
    assert stub.ModelConfig(name).config.name == "lymph_node"
    assert stub.ServerReady(messages.ServerReadyRequest()).ready
    for method, request in (
        ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="lymph_node")),
        ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="lymph_node")),
        ("SystemSharedMemoryRegister", messages.SystemSharedMemoryRegisterRequest(name="a", key="/a", byte_size=1)),
        ("CudaSharedMemoryStatus", messages.CudaSharedMemoryStatusRequest()),
        ("TraceSetting", messages.TraceSettingRequest()),
        ("LogSettings", messages.LogSettingsRequest()),
    ):
        assert refused(getattr(stub, method), request) is grpc.StatusCode.UNIMPLEMENTED, method
    long = messages.ModelConfigRequest(name="lymph_node" * 20)
    assert refused(stub.ModelConfig, long) is grpc.StatusCode.NOT_FOUND
    assert refused(stub.ModelConfig, long, compression=grpc.Compression.Gzip) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("more", "reaches"), [(-4096, True), (1, False)])
def test_the_size_of_a_message(stub, more, reaches):
    request = messages.ModelInferRequest(model_name="no_such_model")
    request.raw_input_contents.append(b"")
    request.raw_input_contents[0] = bytes(LARGEST_MESSAGE + more - request.ByteSize())
    code = refused(stub.ModelInfer, request)
    # Refused while the client still sends, it is told so by the end of the stream only.
    assert (code is grpc.StatusCode.NOT_FOUND) is reaches, code
    assert reaches or code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INVALID_ARGUMENT)
