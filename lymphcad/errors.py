"""Everything that a user can cause to go wrong, under one base class, each with a reason code."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Reason(str, Enum):
    """Why a node was refused or failed: the code that stands in ``results.csv`` before the sentence.

    Codes are part of the interface: scripts filter on them, so an existing one is never renamed.
    """

    # the image
    FILE_MISSING = "file_missing"
    UNKNOWN_IMAGE = "unknown_image"
    AMBIGUOUS_IMAGE = "ambiguous_image"
    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    NO_PIXELS = "no_pixels"
    NO_DECODER = "no_decoder"
    NOT_CT = "not_ct"
    LOCALIZER = "localizer"
    COLOUR = "colour"
    MONOCHROME1 = "monochrome1"
    NOT_AXIAL = "not_axial"
    NO_PIXEL_SPACING = "no_pixel_spacing"
    BAD_PIXEL_SPACING = "bad_pixel_spacing"
    ABSURD_SIZE = "absurd_size"
    BAD_RESCALE = "bad_rescale"
    NO_SUCH_FRAME = "no_such_frame"
    BAD_ARCHIVE = "bad_archive"
    UNSAFE_NAME = "unsafe_name"
    NO_STUDY = "no_study"
    # the node
    BAD_ROW = "bad_row"
    NODE_NOT_A_NUMBER = "node_not_a_number"
    NODE_OUTSIDE_IMAGE = "node_outside_image"
    NODE_IN_PADDING = "node_in_padding"
    # the annotation that a node is taken from
    NOT_A_POINT = "not_a_point"
    OTHER_FRAME_OF_REFERENCE = "other_frame_of_reference"
    OFF_SLICE = "off_slice"
    # the server
    SERVER_AWAY = "server_away"
    SERVER_NOT_READY = "server_not_ready"
    SERVER_TIMEOUT = "server_timeout"
    SERVER_BUSY = "server_busy"
    SERVER_ERROR = "server_error"
    MODEL_MISSING = "model_missing"
    OTHER_BUNDLE = "other_bundle"
    BAD_ANSWER = "bad_answer"
    # the runner of the edge variant
    RUNNER_ERROR = "runner_error"
    # the audit trail
    AUDIT_FAILED = "audit_failed"


class LymphcadError(Exception):
    """Base of all errors that a user can cause; the message is one sentence: what was found, expected, to do."""


class CommandError(LymphcadError):
    """The command was wrong as a whole (exit code 2): a folder that is not there, options that exclude each other."""


class InterruptedByUser(LymphcadError):  # noqa: N818 - it is no error of the program's
    """The user stopped the command (exit code 130); the message says what is there."""


class TableError(CommandError):
    """A node or cohort table that cannot be used as a whole: a column is missing, it is empty or not text."""


class BundleError(CommandError):
    """A bundle that is incomplete, of another version, or whose files do not match their digests."""


class ProofError(LymphcadError):
    """What was computed is not what it must be, so nothing came of it (exit code 4)."""


class Refusal(LymphcadError):  # noqa: N818 - it is no error of the program's
    """One image or node that is not scored, with the reason code; the rest of the batch goes on.

    Parameters
    ----------
    reason
        The code.
    message
        The sentence.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process raise it."""
        return type(self), (self.reason, self.args[0])

    def __str__(self) -> str:
        """Return ``code: sentence``, as it stands in ``results.csv``."""
        return f"{self.reason.value}: {super().__str__()}"


class ServerError(LymphcadError):
    """The server is away, not ready, lacks the model, serves another bundle or answers wrongly; or a runner fails.

    Parameters
    ----------
    reason
        The code.
    message
        The sentence.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process raise it."""
        return type(self), (self.reason, self.args[0])

    def __str__(self) -> str:
        """Return ``code: sentence``, as it stands in ``results.csv``."""
        return f"{self.reason.value}: {super().__str__()}"
