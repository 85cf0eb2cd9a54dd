"""The release file: which servers have which bundle, which new clients get, and what was done when."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lymphcad.errors import CommandError
from lymphcad_serve.release.addresses import read_address
from lymphcad_serve.versions import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Bundle

FORMAT: Final = 1
WHOLE = 100.0

_METRICS = re.compile(r"[A-Za-z0-9.*:\[\]-]*:[0-9]{1,5}")
_FOLDER = re.compile(r"[A-Za-z0-9._/-]+")

Did = Literal["begin", "candidate", "share", "finish", "back"]
Share = Annotated[float, Field(ge=0, le=WHOLE, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Served(_Frozen):
    """A bundle.

    Attributes
    ----------
    name
        As in its ``bundle.json``.
    digest
        SHA-256 of its ``bundle.json``: what clients send as ``lymphcad-bundle``.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def label(self) -> str:
        """Name and the first digits of the digest, as in results."""
        return f"{self.name}@{self.digest[:12]}"


class Group(_Frozen):
    """Servers that serve one bundle, in one precision.

    Attributes
    ----------
    bundle
        None where it is not known: the servers are then asked for any bundle.
    servers
        Addresses (`read_address`); a name other than ``localhost`` is asked of DNS again and again, and stands for
        every server that it gives.
    """

    bundle: Served | None
    servers: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def label(self) -> str:
        """The bundle in words."""
        return "an unknown bundle" if self.bundle is None else self.bundle.label


class Event(_Frozen):
    """What was done, with what came of it.

    Attributes
    ----------
    at
        UTC, ISO 8601.
    did
        By which option.
    stable, candidate, share
        Afterwards.
    """

    at: str
    did: Did
    stable: str
    candidate: str | None
    share: float


class Release(_Frozen):
    """The contents of a release file.

    Attributes
    ----------
    listen
        Where the balancer listens: ``grpcs://*:8443``.
    metrics
        ``host:port`` of its Prometheus metrics.
    tls
        Folder with ``tls.crt``, ``tls.key`` and ``ca.crt``, as the balancer sees it; it shows this certificate to
        clients and to servers, and trusts what this CA has signed. None without TLS, which only loopback may do.
    stable
        What a new client gets.
    candidate
        The other group, if there is one: it keeps the clients that have its bundle.
    share
        Of the new clients, percent, that get the candidate.
    finished
        The candidate is what was stable before: `back` returns to it.
    history
        The oldest first.
    """

    format: Literal[1] = FORMAT
    listen: str
    metrics: str
    tls: str | None
    stable: Group
    candidate: Group | None = None
    share: Share = 0.0
    finished: bool = False
    history: tuple[Event, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Release:
        if _METRICS.fullmatch(self.metrics) is None:
            raise CommandError(f"'{self.metrics}' is no HOST:PORT for metrics: write it as *:8404")
        if self.tls is not None and _FOLDER.fullmatch(self.tls) is None:
            raise CommandError(f"'{self.tls}' is no folder that a configuration can name: one without spaces, as /tls")
        groups = [self.stable] + ([self.candidate] if self.candidate else [])
        servers = [server for group in groups for server in group.servers]
        addresses = [read_address(server) for server in servers]
        listening = read_address(self.listen, anywhere=True)
        if len(set(servers)) < len(servers):
            raise CommandError("a server stands twice in the release: each has one bundle, so name it once")
        for group in groups:
            if len({read_address(server).secure for server in group.servers}) > 1:
                raise CommandError("a group has servers with TLS and without: write grpcs:// for all of them")
        for address in (*addresses, listening):
            if address.secure and self.tls is None:
                raise CommandError("an address is grpcs://, and no folder with certificates was named: add --tls")
            if not address.secure and not address.is_loopback:
                raise CommandError(
                    f"{address.host} would be spoken to without TLS, which only loopback may be: write grpcs:// and"
                    " name the certificates with --tls"
                )
        for address in addresses:
            if address.secure and address.is_ip:
                raise CommandError(
                    f"{address.host} is an IP address, and the certificate of a server with TLS is of a name: name it"
                    " by that"
                )
        if self.share and (self.candidate is None or self.finished):
            raise CommandError("there is no candidate that could have a share: name one with --candidate")
        digests = [group.bundle.digest for group in groups if group.bundle]
        if len(set(digests)) < len(digests):
            raise CommandError(f"the bundle {self.stable.label} is stable already: name another one as candidate")
        return self


def new_release(group: Group, listen: str, metrics: str, tls: str | None) -> Release:
    """Return a release whose only bundle is stable at once; raises as `Release` does."""
    return _after(Release(listen=listen, metrics=metrics, tls=tls, stable=group), "begin")


def with_candidate(release: Release, bundle: Served, servers: tuple[str, ...]) -> Release:
    """Put a candidate beside what is stable, with no share as yet.

    Parameters
    ----------
    release
        Its candidate, if there is one, must have no share, unless it is the same bundle.
    bundle
        The new one.
    servers
        That serve it; those of the candidate that it replaces if there are none.

    Returns
    -------
    Release
        With the candidate.

    Raises
    ------
    CommandError
        If another candidate has a share, or no servers are known.
    """
    old = release.candidate
    same = old is not None and old.bundle == bundle and not release.finished
    if release.share and not same:
        raise CommandError(
            f"{old.label if old else ''} is a candidate with {release.share:g} % of the new clients: take it back"
            " (--back) or finish it (--finish) first"
        )
    known = servers or (old.servers if old else ())
    if not known:
        raise CommandError("no servers of the candidate were given: name each with --server")
    group = Group(bundle=bundle, servers=known)
    changed = _changed(release, candidate=group, finished=False)
    return release if same and group == old else _after(changed, "candidate")


def with_share(release: Release, share: float) -> Release:
    """Give the candidate a share of the new clients, percent; raises `CommandError` if there is no candidate."""
    if release.candidate is None or release.finished:
        raise CommandError("there is no candidate that could have a share: name one with --candidate")
    return _after(_changed(release, share=share), "share")


def finish(release: Release) -> Release:
    """Make the candidate stable; what was stable keeps its clients, and is what `back` returns to.

    Raises
    ------
    CommandError
        If there is no candidate.
    """
    if release.candidate is None or release.finished:
        raise CommandError("there is no candidate that could become stable: name one with --candidate")
    swapped = _changed(release, stable=release.candidate, candidate=release.stable, share=0.0, finished=True)
    return _after(swapped, "finish")


def back(release: Release) -> Release:
    """Give no new client the candidate; after `finish`, make stable again what was.

    Raises
    ------
    CommandError
        If the candidate has no share and was not finished.
    """
    if release.finished and release.candidate is not None:
        swapped = _changed(release, stable=release.candidate, candidate=release.stable, finished=False)
        return _after(swapped, "back")
    if not release.share:
        raise CommandError("no new client gets a candidate, so there is nothing to go back from")
    return _after(_changed(release, share=0.0), "back")


def served(bundle: Bundle) -> Served:
    """Return what a release says of a bundle."""
    return Served(name=bundle.manifest.name, digest=bundle.digest)


def read_release(path: Path) -> Release:
    """Read a release file.

    Raises
    ------
    CommandError
        If it is missing, or something in it is wrong.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Release.model_validate(value)
    except OSError as error:
        raise CommandError(f"'{path}' cannot be read ({error.strerror}): name a release file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise CommandError(f"'{path}' is no release file of this version: {where}: {first['msg']}") from None
    except ValueError:
        raise CommandError(f"'{path}' is not JSON: name a release file that `lymphcad promote` wrote") from None


def write_release(release: Release, path: Path) -> None:
    """Write a release file, as a whole or not at all.

    Raises
    ------
    CommandError
        If it cannot be written.
    """
    try:
        replace_file(path, release.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise CommandError(f"'{path}' cannot be written ({error.strerror}): name another release file") from None


def _changed(release: Release, **fields: object) -> Release:
    """Return a release with other fields, checked as a new one is."""
    return Release.model_validate({**{name: getattr(release, name) for name in Release.model_fields}, **fields})


def _after(release: Release, did: Did) -> Release:
    event = Event(
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        did=did,
        stable=release.stable.label,
        candidate=None if release.candidate is None else release.candidate.label,
        share=release.share,
    )
    return _changed(release, history=(*release.history, event))
