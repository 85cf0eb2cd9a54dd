"""What the population stability index is by chance alone: ``python -m benchmarks.drift``.

A training cohort of m nodes and n nodes of the same kind are drawn again and again, the index is computed as
deploy/prometheus/rules/clinical.yml does, and how often each level of the alerts is passed is printed as a table.
"""

from __future__ import annotations

import numpy as np

from lymphcad.reference import Distribution

FLOOR, TIMES, WARNING, CRITICAL = 0.001, 3, 0.1, 0.25
"""As in the rules: the least share of a bin, how many times chance an alert asks for, and the two levels."""
_DRAWS = 4000


def psi(observed: np.ndarray, expected: np.ndarray) -> float:
    """Return the index of two lots of shares, float [bins]."""
    a, e = np.maximum(observed, FLOOR), np.maximum(expected, FLOOR)
    return float(((a - e) * np.log(a / e)).sum())


def by_chance(shares: np.ndarray, n: int, m: int) -> float:
    """Return what chance gives on average: one less than the bins that the cohort filled, times 1/n + 1/m."""
    return float((np.count_nonzero(shares) - 1) * (1 / n + 1 / m))


def main() -> None:
    """Print the table."""
    generator = np.random.default_rng(0)
    print("| Cohort, m | Nodes, n | formula | mean | 95 % | 99 % | over 0.1 | warns | over 0.25 | alarms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for m in (100, 233, 1000):
        for n in (200, 1000, 5000):
            found, passed = [], []
            for _ in range(_DRAWS):
                reference = Distribution.of(generator.uniform(size=m))
                values = np.searchsorted(reference.edges, generator.uniform(size=n), side="right")
                shares = np.asarray(reference.shares)
                chance = by_chance(shares, n, m)
                one = psi(np.bincount(values, minlength=len(shares)) / n, shares)
                found.append(one)
                passed.append([one > level and one > TIMES * chance for level in (WARNING, CRITICAL)])
            lots = np.asarray(found)
            warns, alarms = np.mean(passed, axis=0)
            middle, high, top = lots.mean(), *np.quantile(lots, (0.95, 0.99))
            over = [(lots > level).mean() for level in (WARNING, CRITICAL)]
            print(
                f"| {m} | {n} | {chance:.3f} | {middle:.3f} | {high:.3f} | {top:.3f} "
                f"| {over[0]:.1%} | {warns:.1%} | {over[1]:.1%} | {alarms:.1%} |"
            )


if __name__ == "__main__":
    main()
