"""From what a command line says to a scorer: a Triton server, or a bundle in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad.bundle import Bundle
from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Precision
    from lymphcad_client.edge.runner import Name
    from lymphcad_client.edge.scorer import EdgeScorer
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
    if edge is None:
        given = {"--precision": precision, "--engines": engines, "--key": key}
        alone = [name for name, value in given.items() if value is not None]
        alone += ["--runner"] if runner != "auto" else []
        if alone:
            raise CommandError(f"{alone[0]} goes with --edge: name the bundle to score with in this process")
        from lymphcad_client.triton import TritonScorer

        digest = None if bundle is None else Bundle(bundle).digest
        return TritonScorer(server or DEFAULT_SERVER, bundle_digest=digest, timeout_s=timeout_s)
    if server is not None or bundle is not None:
        raise CommandError("--edge scores in this process: leave --server and --bundle out")
    from lymphcad_client.edge.scorer import EdgeScorer

    return EdgeScorer(Bundle(edge, key), runner=runner, precision=precision, engines=engines)
