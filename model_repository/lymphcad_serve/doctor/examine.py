"""All checks that apply, in the order in which one needs what the ones before found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad_client.edge.cache import default_cache

from lymphcad.bundle import Bundle
from lymphcad.errors import BundleError, CommandError
from lymphcad_serve.doctor.clock import check_clock
from lymphcad_serve.doctor.files import check_bundle, check_repository, check_times
from lymphcad_serve.doctor.gpu import check_gpu, check_tensorrt_plan, find_gpu
from lymphcad_serve.doctor.machine import check_cores, check_disks, check_files, check_memory, check_port
from lymphcad_serve.doctor.packages import check_engines, check_numpy, check_python, check_tritonserver
from lymphcad_serve.doctor.server import check_server, is_loopback
from lymphcad_serve.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lymphcad_client.tls import Tls

    from lymphcad_serve.doctor.check import Check


@dataclass(frozen=True)
class Examined:
    """What is looked at, besides this machine.

    Attributes
    ----------
    bundle, key, repository, plan
        Files, each None if not given.
    target
        The server that is, or is to be, served on this machine; None if it is the embedded one, and no other machine's
        server is looked at: who looks at one need not serve.
    servers
        Addresses of those that run.
    tls
        Certificates for those with TLS.
    ports
        By the name of the option that chooses it: on which a server is to listen here.
    """

    bundle: Path | None = None
    key: Path | None = None
    repository: Path | None = None
    plan: Path | None = None
    target: Target | None = None
    servers: tuple[str, ...] = ()
    tls: Tls | None = None
    ports: tuple[tuple[str, int], ...] = (("grpc", 8001), ("metrics", 8002))


def examine(what: Examined) -> Iterator[Check]:
    """Look at everything.

    Parameters
    ----------
    what
        Is looked at.

    Yields
    ------
    Check
        As each is done.

    Raises
    ------
    CommandError
        If something was asked that cannot be looked at.
    """
    if what.bundle is None and (what.plan is not None or what.key is not None):
        raise CommandError("--plan and --key are held against a bundle: name it with --bundle")
    # A wrong address is a wrong command, before anything is said.
    here = [is_loopback(address) for address in what.servers]
    target = what.target or (Target.EMBEDDED if all(here) else None)
    yield check_python()
    yield check_numpy(target)
    yield from check_engines(target)
    yield check_tritonserver(target)
    gpu = find_gpu()
    yield check_gpu(gpu, needed=what.plan is not None or target is Target.GPU)
    yield check_cores()
    yield check_memory()
    yield check_files()
    yield from check_disks([default_cache(), *([what.repository] if what.repository else [])])
    yield check_clock()
    given = [path for path in (what.bundle, what.repository) if path is not None]
    yield from check_times(given)
    bundle = None
    if what.bundle is not None:
        yield from check_bundle(what.bundle, what.key)
        bundle = _whole(what.bundle)
    if what.plan is not None and bundle is not None:
        yield from check_tensorrt_plan(what.plan, bundle, gpu)
    if what.repository is not None:
        yield check_repository(what.repository)
    if not what.servers:
        # Where a server runs, its own ports are taken, and nobody starts another.
        for name, port in what.ports:
            yield check_port(name, port)
    for address in what.servers:
        tls = what.tls if address.startswith("grpcs://") else None
        yield from check_server(address, tls, bundle)


def _whole(path: Path) -> Bundle | None:
    """Return a bundle; None if its own check has said that it is not whole."""
    try:
        return Bundle(path)
    except BundleError:
        return None
