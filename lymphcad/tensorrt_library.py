"""TensorRT and TensorRT-RTX, whose Python interface is the same, through the few names of it that are used here."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    import tensorrt as trt

Name = Literal["tensorrt", "tensorrt_rtx"]
ACCEPTED: dict[Name, tuple[tuple[int, int], int]] = {"tensorrt": ((10, 12), 12), "tensorrt_rtx": ((1, 4), 2)}
"""The first version that is accepted, and the first major version that is not."""
_EXTRA: dict[Name, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
_LOGS: dict[type[trt.ILogger], tuple[trt.ILogger, list[str]]] = {}


class Library(Protocol):
    """What is used of a library; the types are those of the stubs that are published for TensorRT 10."""

    @property
    def ILogger(self) -> type[trt.ILogger]: ...  # noqa: D102, N802 - the library's own names
    @property
    def Builder(self) -> type[trt.Builder]: ...  # noqa: D102, N802
    @property
    def NetworkDefinitionCreationFlag(self) -> type[trt.NetworkDefinitionCreationFlag]: ...  # noqa: D102, N802
    @property
    def BuilderFlag(self) -> type[trt.BuilderFlag]: ...  # noqa: D102, N802
    @property
    def OnnxParser(self) -> type[trt.OnnxParser]: ...  # noqa: D102, N802
    @property
    def Dims4(self) -> type[trt.Dims4]: ...  # noqa: D102, N802
    @property
    def Runtime(self) -> type[trt.Runtime]: ...  # noqa: D102, N802
    @property
    def DataType(self) -> type[trt.DataType]: ...  # noqa: D102, N802


def load(name: Name, extra: str | None = None) -> tuple[Library, str]:
    """Import a library.

    Parameters
    ----------
    name
        Its import name.
    extra
        Of lymphcad, which brings it and what else is needed; if None, the one that builds engines.

    Returns
    -------
    tuple of Library and str
        The library and its version.

    Raises
    ------
    CommandError
        If it is not installed, cannot be loaded, or is of a version that is not accepted; with what to install.
    """
    (first, ending) = ACCEPTED[name]
    wanted = f"pip install 'lymphcad[{extra or _EXTRA[name]}]' brings one from {first[0]}.{first[1]} on, below {ending}"
    try:
        # A module is no type, and the stubs know the first of the two only.
        library: Any = importlib.import_module(name)
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise CommandError(f"the package {name} is not installed: {wanted}") from None
        said = " ".join(str(error).split())
        raise CommandError(f"the package {name} is installed and cannot be loaded ({said}): {wanted}") from None
    version = getattr(library, "__version__", None)
    if version is None or not hasattr(library, "Builder"):
        raise CommandError(f"the package {name} is installed without its libraries: {wanted}")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not first <= (int(found[1]), int(found[2])) < (ending, 0):
        raise CommandError(f"{name} {version} is installed, and it is not one of the accepted versions: {wanted}")
    return cast("Library", library), version


def keep_log(library: Library) -> tuple[trt.ILogger, list[str]]:
    """Return a library's logger, which prints nothing, and the list in which it keeps warnings and errors, now empty.

    A library knows one logger at a time: it ignores a second while anything lives that was made with the first.
    """
    base = library.ILogger
    if base not in _LOGS:
        kept: list[str] = []
        loud = int(base.WARNING)

        def log(_: object, severity: trt.ILogger.Severity, msg: str) -> None:
            if int(severity) <= loud:
                kept.append(msg)

        _LOGS[base] = (type("Log", (base,), {"log": log})(), kept)
    _LOGS[base][1].clear()
    return _LOGS[base]


def first_line(messages: list[str]) -> str:
    """Return the first of a library's messages in one line, for the others follow from it."""
    return " ".join(messages[0].split()) if messages else "it gave no reason"
