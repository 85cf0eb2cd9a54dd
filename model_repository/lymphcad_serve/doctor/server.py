"""A server that runs: reached, ready, which bundle, whether it computes what it must, and how fast."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import grpc
from lymphcad_client.tls import Tls, open_channel, parse_address
from lymphcad_client.triton import TritonScorer
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lymphcad.bundle import bundle_label
from lymphcad.errors import ServerError
from lymphcad.golden import GoldenError
from lymphcad_serve.capacity.measure import sample_window
from lymphcad_serve.doctor.certificate import check_certificate
from lymphcad_serve.doctor.check import fail, ok, skip, warn
from lymphcad_serve.verify_served import verify_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lymphcad.bundle import Bundle
    from lymphcad_serve.doctor.check import Check

_ANSWER_S = 10.0
_REQUESTS, _SLOW_S = 5, 1.0
_OLD = (2, 51)
"""What the server of Triton 24.10 calls itself, whose vulnerabilities are known; the floor is release 26.07, whose
number in this count no server here has told."""


def check_server(address: str, tls: Tls | None, bundle: Bundle | None) -> Iterator[Check]:
    """Say how a server is.

    Parameters
    ----------
    address
        ``grpc://host:port`` or ``grpcs://host:port``.
    tls
        Certificates, for an address with TLS.
    bundle
        That it must serve; any if None, and then its golden inputs are not at hand.

    Yields
    ------
    Check
        Until one fails on which the others depend.

    Raises
    ------
    CommandError
        If the address is none, or a certificate cannot be read.
    """
    parsed = parse_address(address)
    who, local = parsed.target, is_loopback(address)
    if parsed.secure:
        yield from check_certificate(parsed, tls or Tls())
    elif local:
        yield ok(f"TLS {who}", "plain text, on this machine's loopback")
    else:
        yield warn(f"TLS {who}", "plain text over a network", "serve with TLS, and name the server as grpcs://")
    try:
        scorer = TritonScorer(address, tls=tls, timeout_s=_ANSWER_S)
    except ServerError as error:
        yield fail(f"server {who}", str(error))
        return
    with scorer:
        yield ok(f"server {who}", f"ready, computes in {scorer.computed_in}")
        yield _version(address, tls, who, local=local)
        served = bundle_label(scorer.manifest, scorer.digest)
        if bundle is None:
            yield ok(f"bundle {who}", f"serves {served}; which it must serve was not said (--bundle)")
            yield skip(f"golden inputs {who}", "they lie in the bundle", "name it with --bundle")
        elif bundle.digest != scorer.digest:
            todo = "serve that bundle, or name the one that it serves"
            yield fail(f"bundle {who}", f"serves {served}, and {bundle.label} was to be served", todo)
        else:
            yield ok(f"bundle {who}", f"serves {served}")
            yield _golden(bundle, address, tls, who)
        yield _latency(scorer, who)


def is_loopback(address: str) -> bool:
    """Return whether an address of a server is of this machine itself."""
    host = parse_address(address).host.strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _golden(bundle: Bundle, address: str, tls: Tls | None, who: str) -> Check:
    name = f"golden inputs {who}"
    try:
        found = verify_server(bundle, address, tls)
    except (GoldenError, ServerError) as error:
        return fail(name, str(error))
    return ok(name, f"give what they gave: {found}")


def _latency(scorer: TritonScorer, who: str) -> Check:
    name, times = f"latency {who}", []
    window = sample_window(scorer.manifest.preprocess)
    try:
        for _ in range(_REQUESTS):
            begun = time.perf_counter()
            scorer.score_window(window)
            times.append(time.perf_counter() - begun)
    except ServerError as error:
        return fail(name, str(error))
    found = f"{1000 * statistics.median(times):.1f} ms for a node, {1000 * max(times):.1f} ms at most, of {_REQUESTS}"
    if statistics.median(times) > _SLOW_S:
        return warn(name, found, "see its load (`lymphcad capacity`), the network, and on a GPU that it serves a plan")
    return ok(name, found)


def _version(address: str, tls: Tls | None, who: str, *, local: bool) -> Check:
    name = f"triton {who}"
    channel = open_channel(parse_address(address), tls)
    stub: Any = GRPCInferenceServiceStub(channel)
    try:
        said = stub.ServerMetadata(messages.ServerMetadataRequest(), timeout=_ANSWER_S).version
    except grpc.RpcError as error:
        call: Any = error
        return fail(name, f"it does not tell its version ({call.details()})", "see its log")
    finally:
        channel.close()
    found = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    if local or found > _OLD:
        return ok(name, f"version {said}" + ("" if local else "; the floor is release 26.07: see its container's tag"))
    return fail(name, f"version {said}, whose vulnerabilities are known, on a network", "use Triton 26.07 or later")
