"""The bundle: the graphs, and ``bundle.json``, which carries everything that gives a score its meaning."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import BundleError
from lymphcad.reference import Reference

FORMAT: Final = 2
BUNDLE_JSON = "bundle.json"
PREPROCESS, CAM, GOLDEN = "preprocess.onnx", "cam.onnx", "golden.npz"

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")
"""Of the CNN, the one first that a CPU is fastest with."""

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocess(_Frozen):
    """What the preprocess graph does to a slice.

    Attributes
    ----------
    field_of_view_mm
        Side of the square that is cut around the node, mm.
    window_level_hu, window_width_hu
        The window that is mapped to 0..1, HU.
    size
        S, the side of the crop, pixels.
    """

    field_of_view_mm: _Positive
    window_level_hu: float
    window_width_hu: _Positive
    size: Annotated[int, Field(ge=32, le=1024)]


class Tolerance(_Frozen):
    """How far the golden inputs' outputs may be from those in `GOLDEN` on another machine.

    Attributes
    ----------
    probability
        Largest difference of PROBABILITY.
    heatmap
        Mean difference of HEATMAP, grey levels of 255.
    relative
        Root mean square difference of CROP, LOGITS or MAPS, over the root mean square of what is expected.
    """

    probability: _Positive
    heatmap: _Positive
    relative: _Positive


class Manifest(_Frozen):
    """The contents of ``bundle.json``.

    Attributes
    ----------
    architecture
        Name of the network.
    classes
        Order of the logits.
    preprocess
        See `Preprocess`.
    map_size
        Rows and columns of the class activation maps, pixels.
    evidence_scale
        Evidence (difference of the maps, logits) that the heatmap shows as 255.
    temperature
        Divisor of the logits, fitted on validation.
    threshold
        A probability at or above it is called metastatic; chosen on validation.
    precisions
        Of the CNN graphs; there is one ``cnn.PRECISION.onnx`` and one ``edge.PRECISION.onnx`` for each.
    golden
        Tolerances of the golden inputs by precision, and ``bf16`` where an engine computes in bfloat16.
    training
        Digest and composition of the training cohort, seed, what was chosen when.
    metrics
        With confidence intervals, and on what they were measured.
    versions
        Of the packages that made the bundle.
    reference
        What the training cohort looked like, to hold against what comes in later; bundles of before have none.
    files
        SHA-256 of every other file.
    """

    format: Literal[2] = FORMAT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    architecture: str
    classes: tuple[Literal["benign"], Literal["metastatic"]] = ("benign", "metastatic")
    preprocess: Preprocess
    map_size: tuple[int, int]
    evidence_scale: _Positive
    temperature: _Positive
    threshold: Annotated[float, Field(ge=0, le=1)]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    golden: dict[Literal["fp32", "fp16", "int8", "bf16"], Tolerance]
    training: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    reference: Reference | None = None
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    notice: str = RESEARCH_USE_ONLY

    @property
    def preferred(self) -> Precision:
        """The precision that is served where none is asked for: the first of `PRECISIONS` that the bundle has."""
        return next(precision for precision in PRECISIONS if precision in self.precisions)


class Bundle:
    """A bundle on disk whose files match their digests.

    Parameters
    ----------
    path
        The directory.
    key
        File of the public key by whose owner it must be signed; not asked for if None.

    Attributes
    ----------
    manifest : Manifest
        What ``bundle.json`` says.
    digest : str
        SHA-256 of ``bundle.json``, and so of the whole bundle.

    Raises
    ------
    BundleError
        If a file is missing or changed, ``bundle.json`` is not of this version, or the signature is not the key's.
    CommandError
        If the key cannot be read.
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        self.path = path
        try:
            raw = (path / BUNDLE_JSON).read_bytes()
        except OSError:
            raise BundleError(
                f"there is no {BUNDLE_JSON} in '{path}': give the directory that `lymphcad export` wrote"
            ) from None
        if key is not None:
            # Before anything in it is believed.
            from lymphcad.signature import SIGNATURE, check_signature, read_public_key

            signature = path / SIGNATURE
            given = signature.read_bytes() if signature.is_file() else None
            check_signature(raw, given, read_public_key(key), str(path))
        self.manifest = parse_manifest(raw)
        self.digest = hashlib.sha256(raw).hexdigest()
        for name in (PREPROCESS, CAM, GOLDEN, *(_cnn(one) for one in self.manifest.precisions)):
            if name not in self.manifest.files:
                raise BundleError(f"{BUNDLE_JSON} in '{path}' lists no {name}: export the bundle again")
        for name, expected in self.manifest.files.items():
            file = path / name
            if Path(name).name != name or not file.is_file():
                raise BundleError(f"the bundle '{path}' lacks its file {name!r}: copy the whole bundle again")
            if sha256(file) != expected:
                raise BundleError(
                    f"{name} in the bundle '{path}' does not match the digest in {BUNDLE_JSON}, so it was changed or"
                    " damaged: copy the bundle again"
                )

    def cnn(self, precision: Precision) -> Path:
        """Return the file of the CNN graph in a precision.

        Parameters
        ----------
        precision
            One of the manifest's.

        Returns
        -------
        Path
            Its digest was checked.

        Raises
        ------
        BundleError
            If the bundle has no such graph.
        """
        return self._graph(_cnn(precision), precision)

    def edge(self, precision: Precision) -> Path:
        """Return the file of the merged graph in a precision; parameters, value and error as in `cnn`."""
        return self._graph(f"edge.{precision}.onnx", precision)

    def _graph(self, name: str, precision: Precision) -> Path:
        if precision not in self.manifest.precisions or name not in self.manifest.files:
            raise BundleError(
                f"the bundle '{self.path}' has its CNN in {', '.join(self.manifest.precisions)}, and {precision} was"
                f" asked for: export it with --precision {precision}"
            )
        return self.path / name

    @property
    def label(self) -> str:
        """What stands in the column ``bundle`` of results: name and the first digits of the digest."""
        return bundle_label(self.manifest, self.digest)


def _cnn(precision: str) -> str:
    return f"cnn.{precision}.onnx"


def bundle_label(manifest: Manifest, digest: str) -> str:
    """Return ``name@digest``, the digest cut to 12 digits."""
    return f"{manifest.name}@{digest[:12]}"


def parse_manifest(raw: bytes) -> Manifest:
    """Check the contents of a ``bundle.json``.

    Parameters
    ----------
    raw
        The file.

    Returns
    -------
    Manifest
        Valid.

    Raises
    ------
    BundleError
        If it is no JSON, of another version, or a value is missing or out of range.
    """
    try:
        value = json.loads(raw)
    except ValueError:
        raise BundleError(f"{BUNDLE_JSON} is not JSON, so it is damaged: copy the bundle again") from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise BundleError(f"{BUNDLE_JSON} is of format {found!r}, and this version reads {FORMAT}: export it again")
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{BUNDLE_JSON}: {where}: {first['msg']}; export the bundle again") from None


def write_bundle(path: Path, manifest: dict[str, Any]) -> Bundle:
    """Write ``bundle.json`` over the files that lie in a directory, and read it back.

    Parameters
    ----------
    path
        The directory with the graphs and whatever travels with them.
    manifest
        The fields of `Manifest` but for ``files``.

    Returns
    -------
    Bundle
        Valid.

    Raises
    ------
    BundleError
        If a field is missing or out of range.
    """
    files = {file.name: sha256(file) for file in sorted(path.iterdir())}
    value = {"format": FORMAT, **manifest, "files": files, "notice": RESEARCH_USE_ONLY}
    (path / BUNDLE_JSON).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return Bundle(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
