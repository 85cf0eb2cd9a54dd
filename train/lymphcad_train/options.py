"""What the commands that train have in common: settings from options, the recorded command, a result in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from lymphcad_train.settings import Settings

INTERRUPTED = 130
BY_IMAGE = (
    "Split by image: images of one patient stand in training and in test, so every figure below is inflated. This only"
    " repeats the paper's probable reading; for a figure to rely on, leave --split-by out."
)


@dataclass(frozen=True)
class Crop:
    """The options of the crop, mm, HU and pixels; the network's own size if None."""

    field_of_view_mm: float
    window_level_hu: float
    window_width_hu: float
    size: int | None


def make_settings(arch: str, weights: str, crop: Crop, **options: Any) -> Settings:
    """Return the settings of a run.

    Parameters
    ----------
    arch, weights, crop, options
        As given on the command line; options are the other fields of `Settings`.

    Returns
    -------
    Settings
        Valid.

    Raises
    ------
    CommandError
        If an option is out of range, with its name; if there is no such network or file of weights; if the crop is too
        small for the network.
    """
    from pydantic import ValidationError

    from lymphcad.bundle import Preprocess
    from lymphcad_train.networks import check_size, native_size
    from lymphcad_train.settings import Settings
    from lymphcad_train.weights import describe

    try:
        preprocess = Preprocess(
            field_of_view_mm=crop.field_of_view_mm,
            window_level_hu=crop.window_level_hu,
            window_width_hu=crop.window_width_hu,
            size=native_size(arch) if crop.size is None else crop.size,
        )
        settings = Settings(architecture=arch, weights=describe(weights), preprocess=preprocess, **options)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][-1]).replace("_", "-")
        raise CommandError(f"--{option}: {first['msg']}, and {first['input']} was given") from None
    for side in {settings.size_of(epoch) for epoch in (0, settings.epochs - 1)}:
        check_size(arch, side)
    return settings


def command_of(cohort: Path, out: Path, settings: Settings, weights: str) -> str:
    """Return the command that repeats a run, without the folders of this machine."""
    return (
        f"lymphcad train {cohort.name} --out {out.name} --arch {settings.architecture} --weights {Path(weights).name}"
        f" --size {settings.preprocess.size} {options_of(settings)}"
    )


def options_of(settings: Settings) -> str:
    """Return the options that do not depend on the network."""
    crop = settings.preprocess
    extra = "" if settings.sensitivity is None else f" --sensitivity {settings.sensitivity:g}"
    extra += " --mirrored" if settings.mirrored else ""
    extra += "" if settings.split_by == "patient" else f" --split-by {settings.split_by}"
    return (
        f"--progressive {settings.progressive} --field-of-view-mm {crop.field_of_view_mm:g} --window-level-hu"
        f" {crop.window_level_hu:g} --window-width-hu {crop.window_width_hu:g} --epochs {settings.epochs} --patience"
        f" {settings.patience} --batch {settings.batch} --lr {settings.lr:g} --focus {settings.focus:g}{extra}"
        f" --seed {settings.seed}"
    )


def in_words(found: dict[str, Any]) -> str:
    """Return an evaluation as one line."""

    def figure(name: str) -> str:
        return "not known" if found[name] is None else f"{found[name]:.3f}"

    interval = "" if found["auroc_ci95"] is None else " ({:.3f} to {:.3f})".format(*found["auroc_ci95"])
    return (
        f"{found['n']} images of {found['patients']} patients, AUROC {figure('auroc')}{interval}, sensitivity"
        f" {figure('sensitivity')}, specificity {figure('specificity')}, accuracy {figure('accuracy')}"
    )
