"""When nodes come: one by one, or a study's at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def poisson(rate: float, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return arrivals that know nothing of each other.

    Parameters
    ----------
    rate
        Nodes a second.
    count
        How many.
    generator
        Seeded.

    Returns
    -------
    array
        float64 [count], seconds, ascending.
    """
    return np.cumsum(generator.exponential(1 / rate, count))


def studies(rate: float, nodes: float, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return arrivals of studies that know nothing of each other, each of which brings its nodes at once.

    Parameters
    ----------
    rate
        Nodes a second.
    nodes
        A study's, on average, at least 1: one and a Poisson-distributed number of others.
    count
        How many nodes, at least.
    generator
        Seeded.

    Returns
    -------
    array
        float64 [count or some more, to the end of the last study], seconds, ascending.
    """
    enough = int(2 * count / nodes) + 20
    sizes = 1 + generator.poisson(nodes - 1, enough)
    last = int(np.searchsorted(np.cumsum(sizes), count)) + 1
    return np.repeat(poisson(rate / nodes, last, generator), sizes[:last])
