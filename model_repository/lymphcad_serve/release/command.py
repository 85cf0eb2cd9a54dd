"""``lymphcad promote``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lymphcad_client.options import TlsCa, TlsCert, TlsKey

if TYPE_CHECKING:
    from lymphcad_client.tls import Tls

    from lymphcad.bundle import Bundle
    from lymphcad_serve.release.release import Release

_LISTEN, _METRICS = "grpcs://*:8443", "*:8404"


def promote(
    release: Annotated[Path, typer.Argument(help="The release file; a new one with --candidate.")],
    candidate: Annotated[
        Path | None, typer.Option(help="The new bundle. With a new file it is stable at once.")
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Address of a server that serves it; a name stands for all that DNS gives.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=100, help="Percent of the new clients that get the candidate.")
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="The candidate becomes stable.")] = False,
    back: Annotated[bool, typer.Option("--back", help="No new client gets the candidate; undoes --finish.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only if the servers give what --candidate was proven with.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="Public key (Ed25519, PEM) by whose owner the bundle must be signed.")
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    listen: Annotated[
        str | None, typer.Option(help="Where the balancer listens.", show_default=f"{_LISTEN} in a new file")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="HOST:PORT of its metrics.", show_default=f"{_METRICS} in a new file")
    ] = None,
    tls: Annotated[
        str | None, typer.Option(help="The balancer's folder with tls.crt, tls.key and ca.crt, as it sees it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the balancer's configuration (haproxy.cfg).")] = None,
    reload: Annotated[
        str | None, typer.Option(help="Then have HAProxy read it: its master's process id or command socket.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the release as JSON.")] = False,
) -> None:
    """Give a new bundle to a share of the clients, then to all, or take it back; clients at work keep what they have.

    Without an option, say what holds.
    """
    from lymphcad_client.tls import tls_of
    from rich.console import Console

    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad_serve.release.haproxy import render
    from lymphcad_serve.release.release import read_release, write_release

    if sum([candidate is not None or share is not None, finish, back]) > 1:
        raise CommandError("--finish and --back each go alone: name a candidate or a share in a command of its own")
    if candidate is None and (server or verify or key):
        raise CommandError("--server, --verify and --key go with --candidate: name the bundle")
    if reload is not None and out is None:
        raise CommandError("--reload has HAProxy read what --out writes: name the file that it was started with")
    known = read_release(release) if release.exists() or candidate is None else None
    bundle = None if candidate is None else Bundle(candidate, key)
    where = {
        name: value for name, value in (("listen", listen), ("metrics", metrics), ("tls", tls)) if value is not None
    }
    changed = _begun_or_placed(known, bundle, tuple(server or ()), where)
    changed = _moved(changed, share=share, finish=finish, back=back)
    if verify and bundle is not None:
        _verify(changed, bundle, tls_of(tls_ca, tls_cert, tls_key))
    text = render(changed)
    checked = out is not None and _checked(changed, text)
    if changed != known:
        write_release(changed, release)
    if out is not None:
        _write(text, out, reload)
    if json_output:
        typer.echo(changed.model_dump_json(indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in _state(changed):
        console.print(line, markup=False)
    if out is not None:
        how = "HAProxy takes it" if checked else "not read by HAProxy: it, or the certificates, are not on this machine"
        console.print(f"Written: {out} ({how}).", markup=False)


def _begun_or_placed(
    known: "Release | None", bundle: "Bundle | None", servers: tuple[str, ...], where: dict[str, str]
) -> "Release":
    """Return the release with the bundle in its place, as the stable one if it is the first, and new addresses."""
    from lymphcad.errors import CommandError
    from lymphcad_serve.release.release import Group, Release, new_release, served, with_candidate

    if known is None:
        if bundle is None or not servers:
            raise CommandError("a new release needs a bundle and its servers: give --candidate and --server")
        group = Group(bundle=served(bundle), servers=servers)
        return new_release(group, where.get("listen", _LISTEN), where.get("metrics", _METRICS), where.get("tls"))
    if where:
        known = Release.model_validate(known.model_dump() | where)
    return known if bundle is None else with_candidate(known, served(bundle), servers)


def _moved(release: "Release", *, share: float | None, finish: bool, back: bool) -> "Release":
    from lymphcad_serve.release import release as steps

    if finish:
        return steps.finish(release)
    if back:
        return steps.back(release)
    return release if share is None else steps.with_share(release, share)


def _verify(release: "Release", bundle: "Bundle", tls: "Tls | None") -> None:
    """Have each server of a bundle score its golden inputs."""
    from lymphcad.errors import CommandError
    from lymphcad_serve.release.release import served
    from lymphcad_serve.verify_served import verify_server

    groups = [group for group in (release.stable, release.candidate) if group and group.bundle == served(bundle)]
    if not groups:
        raise CommandError(f"no servers of {bundle.label} are named: give each with --server")
    for address in groups[0].servers:
        verify_server(bundle, address, tls=tls if address.startswith("grpcs://") else None)


def _checked(release: "Release", text: str) -> bool:
    """Have HAProxy read the text, where it and the certificates that the text names are on this machine."""
    from lymphcad_serve.release.balancer import check_config

    return (release.tls is None or Path(release.tls).is_dir()) and check_config(text)


def _write(text: str, out: Path, reload: str | None) -> None:
    from lymphcad.errors import CommandError
    from lymphcad_serve.release import balancer
    from lymphcad_serve.versions import replace_file

    try:
        replace_file(out, text)
    except OSError as error:
        raise CommandError(
            f"'{out}' cannot be written ({error.strerror}), and the release file was: name another file with --out"
        ) from None
    if reload is not None:
        balancer.reload(reload)


def _state(release: "Release") -> list[str]:
    lines = [f"stable: {release.stable.label} on {', '.join(release.stable.servers)}"]
    if release.candidate is not None:
        share = f"{release.share:g} % of the new clients"
        role, holds = (
            ("before", "keeps its clients; --back returns to it") if release.finished else ("candidate", share)
        )
        lines.append(f"{role}: {release.candidate.label} on {', '.join(release.candidate.servers)}, {holds}")
    return lines
