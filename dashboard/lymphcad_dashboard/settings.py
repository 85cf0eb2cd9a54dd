"""What the command line says to the page, which Streamlit runs as a script: it travels in an environment variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

from lymphcad_client.edge.runner import Name
from lymphcad_client.observing import Observing
from lymphcad_client.tls import Tls, tls_of
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Precision
from lymphcad.errors import CommandError

VARIABLE: Final = "LYMPHCAD_DASHBOARD"


class Settings(BaseModel):
    """Of one dashboard; hashable.

    Attributes
    ----------
    server
        Address of the Triton server that answers, ``grpc://host:port``.
    edge
        Without a server: the bundle that answers in this process; the demo bundle if none is named.
    runner, precision, engines, key
        With `edge`; see `lymphcad_client.opening.open_scorer`.
    tls_ca, tls_cert, tls_key
        With a server whose address has TLS; see `lymphcad_client.tls.Tls`.
    audit, metrics, shadow, shadow_out
        Who looks on; see `lymphcad_client.observing.Observing`.
    compare
        What answers beside it: a server's address, or the folder of a bundle.
    report
        Folder of a ``lymphcad compare`` run, which has the report to show.
    sign_in
        Whether only who has signed in sees the page.
    upload_mb
        Largest file that is taken, MB; it is held in memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str | None = None
    edge: Path | None = None
    runner: Name = "auto"
    precision: Precision | None = None
    engines: Path | None = None
    key: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    audit: Path | None = None
    metrics: str | None = None
    shadow: str | None = None
    shadow_out: Path | None = None
    compare: str | None = None
    report: Path | None = None
    sign_in: bool = False
    upload_mb: Annotated[int, Field(ge=1)] = 1024

    @model_validator(mode="before")
    @classmethod
    def _demo(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("server") is None and given.get("edge") is None:
            return {**given, "edge": str(DEMO_BUNDLE)}
        return given

    @property
    def tls(self) -> Tls | None:
        """Of the connection to a server."""
        return tls_of(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def observing(self) -> Observing:
        """Who looks on."""
        return Observing(self.audit, self.metrics, self.shadow, self.shadow_out)

    @classmethod
    def from_environment(cls) -> Settings:
        """Return what `to_environment` left; the defaults if nothing.

        Raises
        ------
        CommandError
            If it is something else.
        """
        try:
            return cls.model_validate_json(os.environ.get(VARIABLE, "{}"))
        except ValidationError:
            raise CommandError(
                f"the environment variable {VARIABLE} does not hold a dashboard's settings: start the page with"
                " `lymphcad dashboard`, which sets it"
            ) from None

    def to_environment(self) -> None:
        """Leave this for the page."""
        os.environ[VARIABLE] = self.model_dump_json()
