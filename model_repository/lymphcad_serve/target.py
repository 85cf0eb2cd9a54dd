"""The servers that a repository can be written for; apart from the writing, so that `lymphcad --help` stays fast."""

from enum import Enum

ENSEMBLE = "lymph_node"
"""The model that a client asks, in every repository."""


class Target(str, Enum):
    """Which server the repository is for.

    ``gpu`` and ``cpu`` are Triton's containers; ``embedded`` is any tritonserver with the Python backend, the network
    and what surrounds it in one step; ``embedded-steps`` the same as the three-step ensemble.
    """

    GPU = "gpu"
    CPU = "cpu"
    EMBEDDED = "embedded"
    EMBEDDED_STEPS = "embedded-steps"
