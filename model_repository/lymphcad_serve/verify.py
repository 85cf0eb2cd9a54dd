"""Whether a bundle is what was proven, and computes here what it did there. No Triton: an edge machine has none."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lymphcad_client.edge.runner import PACKAGES, check_runner, choose_runner, installed

from lymphcad.bundle import Bundle
from lymphcad.errors import CommandError
from lymphcad.golden import read_golden, score_golden
from lymphcad_serve.assets import MODEL_REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Manifest

    Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Verified:
    """What holds.

    Attributes
    ----------
    label
        Name and digest of the bundle.
    files
        How many files have the digest that they must have.
    golden
        What scored the golden inputs again, in words.
    versions
        Of each package that made the bundle: there, and here (None if it is not installed).
    """

    label: str
    files: int
    golden: tuple[str, ...]
    versions: dict[str, tuple[str, str | None]]


def verify_bundle(path: Path, key: Path | None = None) -> Verified:
    """Check the digests of a bundle, and score its golden inputs again in each precision with all that is installed.

    The three graphs one after the other, as the embedded server runs them, and the merged one in each runner.

    Parameters
    ----------
    path
        The folder.
    key
        File of the public key by whose owner it must be signed.

    Returns
    -------
    Verified
        Everything holds.

    Raises
    ------
    BundleError
        If a file is missing or changed, or the signature is not the key's.
    GoldenError
        If the golden inputs give something else on this machine.
    """
    bundle = Bundle(path, key)
    manifest, runners = bundle.manifest, installed()
    if not runners:
        raise CommandError("nothing is installed that scores the golden inputs: pip install 'lymphcad[edge]'")
    golden = []
    for precision in manifest.precisions:
        cnn = bundle.cnn(precision).stem
        for name in runners if len(runners) == len(PACKAGES) else ():
            on_openvino = [cnn] if name == "openvino" else []
            chain = embedded_engine(path, ["preprocess", cnn, "cam"], on_openvino)
            who = f"{precision} in {name}"
            score_golden(run_of(chain), read_golden(bundle, precision), manifest.golden[precision], who)
            golden.append(who)
        for name in runners:
            runner = choose_runner(bundle, name, precision=precision).runner
            check_runner(runner, bundle)
            runner.close()
            golden.append(f"edge.{precision}.onnx in {name}")
    return Verified(bundle.label, len(manifest.files), tuple(golden), versions_of(manifest))


def run_of(engine: Any) -> Callable[[Arrays], Arrays]:
    """Return what runs the engine of the embedded server, which adds to the tensors that it is given."""

    def run(tensors: Arrays) -> Arrays:
        engine.run(tensors)
        return tensors

    return run


def embedded_engine(folder: Path, graphs: list[str], on_openvino: list[str], precision: str = "f32") -> Any:
    """Return the engine of the embedded server (`onnx_engine.Engine`), on all cores."""
    spec = importlib.util.spec_from_file_location("onnx_engine", MODEL_REPOSITORY / "onnx_cpu" / "onnx_engine.py")
    if spec is None or spec.loader is None:
        raise CommandError("the engine of the embedded server is not where it was installed: install lymphcad again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine(folder, graphs, on_openvino, threads=0, precision=precision)


def versions_of(manifest: Manifest) -> dict[str, tuple[str, str | None]]:
    """Return the versions of the packages that made a bundle: there, and here."""
    return {name: (then, _installed(name)) for name, then in manifest.versions.items()}


def _installed(package: str) -> str | None:
    try:
        # Several distributions bring the module onnxruntime: one of them runs on a GPU.
        return version(package) if package != "onnxruntime" else str(import_module(package).__version__)
    except ModuleNotFoundError:
        return None
