"""Options that several commands share: who scores, and who looks on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

# As in lymphcad.bundle and lymphcad_client.edge.runner, whose imports would slow `lymphcad --help`.
_Precision = Literal["fp32", "fp16", "int8"]
_Runner = Literal["auto", "openvino", "openvino-gpu", "onnxruntime", "tensorrt-rtx"]

Bundled = Annotated[Path | None, typer.Option("--edge", help="Score in this process with this bundle, no server.")]
RunnerName = Annotated[_Runner, typer.Option("--runner", help="With --edge: what runs the bundle's graph.")]
Precision = Annotated[
    _Precision | None,
    typer.Option("--precision", help="With --edge: of the CNN; the bundle's choice if not given."),
]
Engines = Annotated[
    Path | None, typer.Option("--engines", help="With --edge: what `lymphcad plan --rtx` wrote, for an RTX GPU.")
]
Key = Annotated[
    Path | None,
    typer.Option("--key", help="With --edge: public key (Ed25519, PEM) by whose owner the bundle must be signed."),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="For grpcs://: who signed the server's certificate (PEM).",
        show_default="whom the system trusts",
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="For grpcs://: our certificate, which the server asks for (PEM).")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")]
Audit = Annotated[Path | None, typer.Option("--audit", help="Append a line for each node to this audit trail.")]
Metrics = Annotated[
    str | None, typer.Option("--metrics", help="Give Prometheus metrics out at HOST:PORT.", metavar="HOST:PORT")
]
Shadow = Annotated[
    str | None, typer.Option("--shadow", help="Server or bundle that is asked the same, for comparison only.")
]
ShadowOut = Annotated[Path | None, typer.Option("--shadow-out", help="File for the pairs of answers.")]
