"""The balancer's configuration: HAProxy 2.6 or later, one request at a time over HTTP/2, from a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad_client.triton import BUNDLE_HEADER

from lymphcad.geometry import MAX_WINDOW
from lymphcad_serve.release.addresses import Address, read_address
from lymphcad_serve.release.asking import question
from lymphcad_serve.release.release import WHOLE

if TYPE_CHECKING:
    from lymphcad_serve.release.release import Group, Release

LARGEST_MESSAGE = 2 * MAX_WINDOW**2 + 65536
"""Bytes: the largest window that a client cuts, int16, and what stands around it. A slice of 512 x 512 has 0.5 MiB."""
SLOTS = 16
"""As many servers can a name stand for."""
DOMAIN = "SERVICE_DOMAIN"
"""The balancer's environment: what DNS has after a name without a dot, e.g. ``.lymphcad.svc.cluster.local``."""
_OFFERED = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex",
    "ModelInfer",
)  # fmt: skip
"""What clients ask. Not among it: loading models, settings of the log and of traces, shared memory, streams."""
_PARTS = 10_000  # of chance, so that a share of 0.01 % is one

_HEAD = """\
# Written by `lymphcad promote` from a release file: change that one. HAProxy 2.6 or later.
global
    log stdout format raw local0 info
    maxconn 4096
    # Certificates as cert-manager writes them: tls.key beside tls.crt.
    ssl-load-extra-del-ext
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-server-options ssl-min-ver TLSv1.2
    # Holds a server's whole answer to the question below, and as much as a stream may send ahead (64 KiB): a server
    # that takes nothing holds up its own requests only.
    tune.bufsize 65536
    tune.h2.max-concurrent-streams 256
    # After a reload the old process ends when its requests are answered, or then.
    hard-stop-after 5m

defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout check 2s
    timeout http-request 10s
    timeout client 5m
    timeout server 60s
    # Only what no server has got is tried again here, and on another one. What was sent may have been scored: that is
    # for the client to ask again, which also asks whether the bundle is still the same.
    retries 3
    option redispatch 1
    retry-on conn-failure
"""


def render(release: Release) -> str:
    """Return the configuration of a release.

    Parameters
    ----------
    release
        Valid.

    Returns
    -------
    str
        Of ``haproxy.cfg``; the same for the same release, whatever its history.
    """
    parts = [_HEAD, _dns(release), _frontend(release), _metrics(release), _backend("stable", release.stable, release)]
    if release.candidate is not None:
        parts.append(_backend("candidate", release.candidate, release))
    return "\n".join(part for part in parts if part)


def _dns(release: Release) -> str:
    groups = [release.stable] + ([release.candidate] if release.candidate else [])
    if not any(_is_resolved(read_address(server)) for group in groups for server in group.servers):
        return ""
    return """\
resolvers dns
    parse-resolv-conf
    accepted_payload_size 8192
    hold valid 2s
    # A server that DNS no longer names gets nothing new. Where DNS itself is away, the health checks know enough.
    hold obsolete 2s
    hold nx 5s
    hold timeout 10m
    hold refused 10m
"""


def _frontend(release: Release) -> str:
    address = read_address(release.listen, anywhere=True)
    bind = f"{address.host}:{address.port} "
    bind += (
        f"ssl crt {release.tls}/tls.crt ca-file {release.tls}/ca.crt verify required alpn h2"
        if address.secure
        else "proto h2"
    )
    offered = " ".join(f"/inference.GRPCInferenceService/{name}" for name in _OFFERED)
    refused = "http-request return status 200 hdr grpc-status"
    return f"""\
frontend grpc
    bind {bind}
    # A gRPC error in place of an HTTP one: status 12, not offered; 3, a bad request.
    {refused} 12 hdr grpc-message "the balancer offers no such method" unless {{ method POST }} {{ path {offered} }}
    # A message begins with whether it is compressed, and its length (gRPC over HTTP/2, Length-Prefixed-Message).
    http-request wait-for-body time 10s at-least 5
    http-request set-var(txn.length) req.body,bytes(1,4),hex,hex2i
    acl plain req.body,bytes(0,1),hex 00
    {refused} 3 hdr grpc-message "a plain message was expected" unless {{ req.body_len ge 5 }} plain
    {refused} 3 hdr grpc-message "the message is too large" if {{ var(txn.length) -m int gt {LARGEST_MESSAGE} }}
    http-after-response set-header content-type application/grpc if {{ status 200 }}
{_routes(release)}    default_backend stable
"""


def _routes(release: Release) -> str:
    """Return where a request goes: a client that has a bundle stays with it, a new one is drawn."""
    if release.candidate is None:
        return ""
    known = {name: group.bundle for name, group in (("stable", release.stable), ("candidate", release.candidate))}
    lines = [
        f"use_backend {name} if {{ req.hdr({BUNDLE_HEADER}) {bundle.digest} }}"
        for name, bundle in known.items()
        if bundle is not None
    ]
    # Of a bundle that no group is known to have; a client that gets an answer of another one refuses it.
    unknown = next((name for name, bundle in known.items() if bundle is None), "stable")
    lines.append(f"use_backend {unknown} if {{ req.hdr({BUNDLE_HEADER}) -m found }}")
    drawn = round(release.share * _PARTS / WHOLE)
    if drawn:
        lines.append(f"use_backend candidate if {{ rand({_PARTS}) lt {drawn} }} {{ nbsrv(candidate) gt 0 }}")
    return "".join(f"    {line}\n" for line in lines)


def _metrics(release: Release) -> str:
    return f"""\
frontend metrics
    bind {release.metrics}
    option dontlog-normal
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 200 if {{ path /live }}
    http-request return status 200 if {{ path /ready }} {{ nbsrv(stable) gt 0 }}
    http-request return status 503 if {{ path /ready }}
    http-request return status 404
"""


def _backend(name: str, group: Group, release: Release) -> str:
    addresses = [read_address(server) for server in group.servers]
    lines = [
        f"backend {name}",
        f"    # {group.label}",
        "    balance leastconn",
        "    http-reuse always",
        "    option tcp-check",
        f"    tcp-check send-binary {question(_authority(addresses[0]), secure=addresses[0].secure).hex()}",
        f"    tcp-check expect string {'bundle_sha256' if group.bundle is None else group.bundle.digest}",
        # A server whose connection fails is asked at once, and is out when it does not answer then.
        "    default-server check inter 1s fastinter 500ms fall 2 rise 2 slowstart 10s observe layer4 error-limit 1"
        " on-error sudden-death" + ("" if addresses[0].secure else " proto h2"),
    ]
    lines += [_server(f"{name}{number}", address, release) for number, address in enumerate(addresses, start=1)]
    return "\n".join(lines) + "\n"


def _server(name: str, address: Address, release: Release) -> str:
    tls = ""
    if address.secure:
        tls = (
            f" ssl crt {release.tls}/tls.crt ca-file {release.tls}/ca.crt verify required verifyhost {address.host}"
            f" sni str({address.host}) alpn h2 check-sni {address.host} check-alpn h2"
        )
    if not _is_resolved(address):
        # What a server that says nothing any more still had is given back to the clients.
        return f"    server {name} {address.host}:{address.port}{tls} on-marked-down shutdown-sessions"
    # Not so here: a server that leaves DNS, as one does that stops in order, still answers what it has.
    host = address.host if "." in address.host else f"{address.host}${{{DOMAIN}}}"
    found = f'"{host}:{address.port}" resolvers dns init-addr none resolve-prefer ipv4'
    return f"    server-template {name}- {SLOTS} {found}{tls}"


def _is_resolved(address: Address) -> bool:
    return not address.is_ip and address.host != "localhost"


def _authority(address: Address) -> str:
    return address.host
