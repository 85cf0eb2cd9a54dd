"""The processes of one training, as torchrun counts them."""

import os


def rank() -> int:
    """Return this process's number among all that torchrun started, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes torchrun started on all nodes; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))
