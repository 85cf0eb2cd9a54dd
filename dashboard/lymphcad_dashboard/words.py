"""What a number means and what it does not, what a refusal is called: the sentences of the page and of the summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lymphcad.errors import Reason

if TYPE_CHECKING:
    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding

# A manifest names its cohort by the digest of the table and does not say what the images show. Of the cohorts that the
# shipped bundles learned from it is known, and none is of lymph nodes of patients: what the images are, and what that
# makes of a score.
_NO_PATIENTS_NODES: Final = {
    "67812f3983c349f33f4c1e9100d1c84ffe8d4356cf5dae589470acde24edfd97": (
        "phantoms, which a program drew",
        "It means nothing on a patient: the bundle has learned from phantoms, which a program drew.",
    ),
    "ce5e6563919f98293b60651a18e5f6149514ef2bf9ff20707d983945d6e05b25": (
        "nodules of the lung, which readers judged by eye",
        "It says nothing about a lymph node: the bundle has learned from nodules of the lung, which readers judged by"
        " eye.",
    ),
}

_HEADINGS: Final = {
    Reason.FILE_MISSING: "The file is not there",
    Reason.UNKNOWN_IMAGE: "No such image in the study",
    Reason.AMBIGUOUS_IMAGE: "More than one image has this UID",
    Reason.NOT_DICOM: "Not an image that can be scored",
    Reason.TRUNCATED: "The file is cut off",
    Reason.UNREADABLE: "The file cannot be read",
    Reason.NO_PIXELS: "The file has no image",
    Reason.NO_DECODER: "The image's compression is not supported",
    Reason.NOT_CT: "Not a CT image",
    Reason.LOCALIZER: "A localizer, not a slice",
    Reason.COLOUR: "A colour image or a screenshot, not a CT slice",
    Reason.MONOCHROME1: "The image's grey values may be inverted",
    Reason.NOT_AXIAL: "Not an axial slice",
    Reason.NO_PIXEL_SPACING: "The image does not say how large its pixels are",
    Reason.BAD_PIXEL_SPACING: "The image's pixel spacing cannot be right",
    Reason.ABSURD_SIZE: "The image's size cannot be right",
    Reason.BAD_RESCALE: "The image is not in Hounsfield units",
    Reason.NO_SUCH_FRAME: "No such frame in the file",
    Reason.BAD_ARCHIVE: "The zip, or the file in it, cannot be read",
    Reason.UNSAFE_NAME: "A name in the zip leads out of it",
    Reason.BAD_ROW: "The row of the table cannot be read",
    Reason.NODE_NOT_A_NUMBER: "The node's position is not a number",
    Reason.NODE_OUTSIDE_IMAGE: "The node lies outside the image",
    Reason.NODE_IN_PADDING: "The node lies where the scanner measured nothing",
    Reason.NO_STUDY: "The image belongs to no study",
    Reason.NOT_A_POINT: "The annotation marks no one place",
    Reason.OTHER_FRAME_OF_REFERENCE: "The annotation is of another coordinate system",
    Reason.OFF_SLICE: "The annotation lies on no slice",
    Reason.SERVER_AWAY: "The server does not answer",
    Reason.SERVER_NOT_READY: "The server is not ready",
    Reason.SERVER_TIMEOUT: "The server took too long",
    Reason.SERVER_BUSY: "The server has too much to do",
    Reason.SERVER_ERROR: "The server reports an error",
    Reason.MODEL_MISSING: "The server lacks the model",
    Reason.OTHER_BUNDLE: "The server has another bundle",
    Reason.BAD_ANSWER: "The answer is not one that can be believed",
    Reason.RUNNER_ERROR: "The computation failed",
    Reason.AUDIT_FAILED: "The audit trail cannot be written",
}


def figures(finding: Finding) -> tuple[str, str]:
    """Return probability and threshold as printed: three decimals, and more where those would look alike.

    Parameters
    ----------
    finding
        The answer.

    Returns
    -------
    tuple of str
        Probability, threshold.
    """
    values = finding.probability, finding.threshold
    digits = next((n for n in range(3, 9) if len({f"{value:.{n}f}" for value in values}) == len(set(values))), 9)
    return f"{values[0]:.{digits}f}", f"{values[1]:.{digits}f}"


def call_words(finding: Finding) -> str:
    """Return the call and how it follows.

    Parameters
    ----------
    finding
        The answer.

    Returns
    -------
    str
        A sentence.
    """
    probability, threshold = figures(finding)
    side = "at or above" if finding.probability >= finding.threshold else "below"
    return f"Called {finding.call}: {probability} is {side} the threshold of {threshold}."


def meaning(finding: Finding, manifest: Manifest) -> str:
    """Return what the probability means, and whether the call is a close one.

    It is a share of nodes only in the cohort that it was calibrated on, and that cohort's share of metastatic nodes
    goes into it, so both are named.

    Parameters
    ----------
    finding
        The answer.
    manifest
        Of the bundle that answered.

    Returns
    -------
    str
        One sentence or two.
    """
    known = _NO_PATIENTS_NODES.get(_cohort_digest(manifest))
    said = known[1] if known else _share(finding.probability, manifest)
    differ = max((tolerance.probability for tolerance in manifest.golden.values()), default=0.0)
    if abs(finding.probability - finding.threshold) <= differ:
        said += f" Another machine's probability may differ by {differ:g}, so take the call for undecided."
    return said


def _share(probability: float, manifest: Manifest) -> str:
    n, positives, error = (_number(manifest.metrics, "validation", name) for name in ("n", "positives", "ece"))
    if not n or positives is None:
        return (
            "The bundle does not say on which nodes it was calibrated, so no share of metastatic nodes can be read from"
            " the number."
        )
    about = f"about {100 * probability:.0f}"
    if probability < 0.01:
        about = "fewer than 1"
    elif probability > 0.99:
        about = "more than 99"
    off = "" if error is None else f" (on average off by {100 * error:.0f})"
    return (
        f"Of 100 nodes that score so, {about}{off} are metastatic if they are like the {n:.0f} images that it was"
        f" calibrated on, {100 * positives / n:.0f} % of them metastatic; of others the share is not known."
    )


def cohort_words(manifest: Manifest) -> str:
    """Return what the bundle has learned from.

    Parameters
    ----------
    manifest
        Of the bundle.

    Returns
    -------
    str
        One sentence or two.
    """
    digest = _cohort_digest(manifest)
    n, patients = (_number(manifest.training, name) for name in ("n", "patients"))
    if not digest or n is None or patients is None:
        return "What the bundle has learned from it does not say: do not use its scores before you know."
    known = _NO_PATIENTS_NODES.get(digest)
    if known:
        return f"Learned from {known[0]}: {n:.0f} images, cohort {digest[:12]}."
    return (
        f"Learned from {n:.0f} images of {patients:.0f} patients, cohort {digest[:12]}; what they show stands in its"
        " model card, not in its bundle.json."
    )


def limits(manifest: Manifest) -> str:
    """Return what the bundle does not see and how often it was right.

    Parameters
    ----------
    manifest
        Of the bundle.

    Returns
    -------
    str
        At most four sentences.
    """
    side = f"{manifest.preprocess.field_of_view_mm:g}"
    seen = (
        f"It judges one axial slice, {side} x {side} mm around the point that it is given: it does not find nodes, and"
        " sees neither other slices nor what lies outside."
    )
    n = _number(manifest.metrics, "test", "n")
    sensitivity, specificity = (_rate(manifest, name) for name in ("sensitivity", "specificity"))
    if n is None or sensitivity is None or specificity is None:
        return f"{seen} How often it is right the bundle does not say."
    said = (
        f"{seen} Its threshold was chosen on the validation part of its cohort; on the test part, {n:.0f} images,"
        f" sensitivity was {sensitivity} and specificity {specificity}."
    )
    if _cohort_digest(manifest) in _NO_PATIENTS_NODES:
        said += " Neither holds for lymph nodes of patients."
    else:
        said += " At another hospital, scanner or contrast protocol neither is known."
    if manifest.training.get("split_by") == "image":
        said += " Both are inflated: the cohort was split by image, not by patient."
    return said


def heatmap_words(manifest: Manifest) -> str:
    """Return what the heatmap shows.

    Parameters
    ----------
    manifest
        Of the bundle.

    Returns
    -------
    str
        Two sentences.
    """
    return (
        "The colours show where the network found evidence for metastasis, on one scale for every picture of this"
        f" bundle (0 to {manifest.evidence_scale:.3g} or more, logit), so a weak map looks weak. They do not outline a"
        " metastasis, and no colour does not mean no finding."
    )


def refusal_heading(reason: Reason) -> str:
    """Return what happened to a node that was not scored, in a few words; the sentence of the refusal says what to do.

    Parameters
    ----------
    reason
        The code.

    Returns
    -------
    str
        Without a full stop.
    """
    return _HEADINGS[reason]


def parse_reason(reason: str) -> tuple[Reason, str]:
    """Split what `lymphcad_client.batch.Result.reason` says of a node that was not scored.

    Parameters
    ----------
    reason
        ``code: sentence``.

    Returns
    -------
    reason : Reason
        The code.
    sentence : str
        What was found, what was expected, what to do.

    Raises
    ------
    ValueError
        If it does not start with a code, as that of a scored node.
    """
    code, _, sentence = reason.partition(": ")
    return Reason(code), sentence


def _cohort_digest(manifest: Manifest) -> str:
    return str(manifest.training.get("cohort_sha256", ""))


def _rate(manifest: Manifest, name: str) -> str | None:
    """Return a rate on test in per cent, with its 95 % interval where the bundle has it."""
    value = _number(manifest.metrics, "test", name)
    if value is None:
        return None
    low, high = (_number(manifest.metrics, "test", f"{name}_ci95", end) for end in (0, 1))
    known = "" if low is None or high is None else f" (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    return f"{100 * value:.0f} %{known}"


def _number(values: Any, *keys: str | int) -> float | None:
    """Return a number from nested JSON, or None: what a manifest says under ``training`` and ``metrics`` is free."""
    for key in keys:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return float(values) if isinstance(values, int | float) and math.isfinite(values) else None
