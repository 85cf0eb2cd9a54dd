"""Versions of a model repository: which there are, and which one Triton loads by default.

A bundle is one version, the same number in every model: its files in ``MODEL/N``, its complete configuration in
``MODEL/configs/vN.pbtxt``, which Triton loads with ``--model-config-name=vN``; ``MODEL/config.pbtxt`` is a copy of the
configuration that is in use. Each loads its own version only, and the ensemble names its steps' version, never -1.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from lymphcad.errors import BundleError, CommandError
from lymphcad_serve.target import ENSEMBLE

if TYPE_CHECKING:
    from pathlib import Path

IN_USE = "config.pbtxt"


def config_name(version: int) -> str:
    """Return the file of a version's configuration, relative to its model's folder."""
    return f"configs/v{version}.pbtxt"


def read_config(path: Path, model: str, name: str = IN_USE) -> model_config_pb2.ModelConfig:
    """Return a configuration of a model.

    Parameters
    ----------
    path
        The repository.
    model
        Name of the model.
    name
        What `config_name` returns, or `IN_USE`.

    Returns
    -------
    model_config_pb2.ModelConfig
        As Triton reads it (https://github.com/triton-inference-server/common, protobuf/model_config.proto).

    Raises
    ------
    BundleError
        If it is missing or damaged.
    """
    try:
        text = (path / model / name).read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        raise BundleError(
            f"{model}/{name} in the repository '{path}' is missing or damaged: write the repository again"
        ) from None


def write_config(path: Path, config: model_config_pb2.ModelConfig, version: int) -> None:
    """Write the configuration of a model's version into a repository."""
    replace_file(path / config.name / config_name(version), text_format.MessageToString(config))


def versions_of_repository(path: Path) -> list[int]:
    """Return the versions that are complete, in order: the ensemble's configuration is what is written last."""
    names = [file.stem.removeprefix("v") for file in (path / ENSEMBLE / "configs").glob("v*.pbtxt")]
    return sorted(int(name) for name in names if name.isdecimal())


def models_of(path: Path, version: int) -> list[str]:
    """Return the models of a version, the ensemble last."""
    steps = [file.parents[1].name for file in path.glob(f"*/{config_name(version)}")]
    return [*sorted(model for model in steps if model != ENSEMBLE), ENSEMBLE]


def next_version(path: Path) -> int:
    """Return the number that a new version takes: no folder has it, not even one whose writing was cut off."""
    taken = [int(folder.name) for folder in path.glob("*/*") if folder.is_dir() and folder.name.isdecimal()]
    return max(taken, default=0) + 1


def version_in_use(path: Path) -> int:
    """Return the version that Triton loads where it is not told another.

    Raises
    ------
    BundleError
        If the models do not name one and the same version: a `pin` was cut off.
    """
    for version in versions_of_repository(path):
        models = models_of(path, version)
        if all(read_config(path, model) == read_config(path, model, config_name(version)) for model in models):
            return version
    raise BundleError(
        f"the models in the repository '{path}' are not set to one and the same of its versions: name one with"
        " `lymphcad repository --pin`, or write the repository again"
    )


def pin(path: Path, version: int) -> None:
    """Make a version the one that Triton loads by default; a server that runs keeps what it has loaded.

    Each file is replaced as a whole, the ensemble's last. A repository where that was cut off does not load: the
    ensemble names steps of a version that its models do not offer.

    Parameters
    ----------
    path
        A repository that `write_repository` wrote.
    version
        One of `versions_of_repository`.

    Raises
    ------
    CommandError
        If there is no such version.
    BundleError
        If a configuration is missing or damaged.
    """
    known = versions_of_repository(path)
    if version not in known:
        raise CommandError(
            f"the repository '{path}' has {_listed(known)}, and version {version} was asked for: name one that it has"
        )
    configs = [read_config(path, model, config_name(version)) for model in models_of(path, version)]
    for config in configs:
        replace_file(path / config.name / IN_USE, text_format.MessageToString(config))


def replace_file(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole or as it was before.

    Parameters
    ----------
    path
        Its folder is made if there is none.
    text
        UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _listed(versions: list[int]) -> str:
    return f"the versions {', '.join(map(str, versions))}" if versions else "no version that is complete"
