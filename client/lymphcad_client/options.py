"""Options that several commands share: with which bundle and runner this machine scores."""

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
