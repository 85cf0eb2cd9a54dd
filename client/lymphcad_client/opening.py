"""From what a command line says to a scorer: a Triton server, or a bundle in this process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lymphcad.bundle import Bundle
from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Precision
    from lymphcad_client.edge.runner import Name
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.servers import Servers
    from lymphcad_client.tls import Tls
    from lymphcad_client.triton import TritonScorer

DEFAULT_SERVER = "grpc://127.0.0.1:8001"


def open_scorer(
    *,
    server: str | None = None,
    bundle: Path | None = None,
    edge: Path | None = None,
    runner: Name = "auto",
    precision: Precision | None = None,
    engines: Path | None = None,
    key: Path | None = None,
    timeout_s: float = 30.0,
    tls: Tls | None = None,
) -> TritonScorer | EdgeScorer:
    """Open a scorer; only what it needs is imported.

    Parameters
    ----------
    server
        Address of a Triton server; `DEFAULT_SERVER` if neither it nor `edge` is given.
    bundle
        With a server: the only bundle that may answer.
    edge
        The bundle to score with in this process.
    runner, precision, engines
        With `edge`; see `lymphcad_client.edge.scorer.EdgeScorer`.
    key
        With `edge`: file of the public key by whose owner the bundle must be signed.
    timeout_s
        With a server: for one request.
    tls
        With a server: see `lymphcad_client.triton.TritonScorer`.

    Returns
    -------
    TritonScorer or EdgeScorer
        A context manager.

    Raises
    ------
    CommandError
        If options exclude each other, or as the scorers do.
    LymphcadError
        As the scorers do.
    """
    servers = () if server is None else (server,)
    choice = Choice(servers, bundle, edge, runner, precision, engines, key, timeout_s, tls=tls)
    if edge is not None:
        return choice.open_edge()
    from lymphcad_client.triton import TritonScorer

    addresses, digest = choice.checked()
    return TritonScorer(addresses[0], bundle_digest=digest, timeout_s=timeout_s, tls=tls)


@dataclass(frozen=True)
class Choice:
    """What a command line says of who scores; can be sent to another process and opened there.

    Attributes
    ----------
    servers
        Addresses of Triton servers; `DEFAULT_SERVER` if there is none and no `edge`.
    bundle, edge, runner, precision, engines, key, timeout_s
        As in `open_scorer`.
    patience_s, tls
        With servers: see `lymphcad_client.servers.Servers`.
    """

    servers: tuple[str, ...] = ()
    bundle: Path | None = None
    edge: Path | None = None
    runner: Name = "auto"
    precision: Precision | None = None
    engines: Path | None = None
    key: Path | None = None
    timeout_s: float = 30.0
    patience_s: float = 120.0
    tls: Tls | None = None

    def open(self, digest: str | None = None) -> Servers | EdgeScorer:
        """Open a scorer that tries again what may succeed then.

        Parameters
        ----------
        digest
            With servers: of the bundle, where its files are not at hand; `bundle` is not read then.

        Returns
        -------
        Servers or EdgeScorer
            A context manager.

        Raises
        ------
        LymphcadError
            As `open_scorer` does.
        """
        if self.edge is not None:
            return self.open_edge()
        from lymphcad_client.servers import Servers

        known = self if digest is None else replace(self, bundle=None)
        addresses, found = known.checked()
        return Servers(
            addresses,
            bundle_digest=digest or found,
            timeout_s=self.timeout_s,
            patience_s=self.patience_s,
            tls=self.tls,
        )

    def open_edge(self) -> EdgeScorer:
        """Open the bundle `edge` in this process. Raises as `open_scorer` does."""
        if self.servers or self.bundle is not None or self.tls is not None:
            raise CommandError("--edge scores in this process: leave --server, --tls-* and --bundle out")
        if self.edge is None:
            raise CommandError("no bundle was given: name one with --edge")
        from lymphcad_client.edge.scorer import EdgeScorer

        return EdgeScorer(
            Bundle(self.edge, self.key), runner=self.runner, precision=self.precision, engines=self.engines
        )

    def checked(self) -> tuple[tuple[str, ...], str | None]:
        """Return the servers' addresses, and the digest of the only bundle that may answer.

        Raises
        ------
        CommandError
            If options were given that go with `edge`; or as `lymphcad.bundle.Bundle` does.
        """
        given = {"--precision": self.precision, "--engines": self.engines, "--key": self.key}
        alone = [name for name, value in given.items() if value is not None]
        alone += ["--runner"] if self.runner != "auto" else []
        if alone:
            raise CommandError(f"{alone[0]} goes with --edge: name the bundle to score with in this process")
        return self.servers or (DEFAULT_SERVER,), None if self.bundle is None else Bundle(self.bundle).digest
