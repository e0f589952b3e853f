"""How sure a difference between two methods is, from the same questions answered by both.

Law: questions are drawn, not answers: both methods always lose or keep the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specrag_native.errors import UserError

N_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the bounds of its 95% interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the mean of ``values`` with its percentile bootstrap interval.

    Raises:
        UserError: there is no value.
    """
    if not values:
        raise UserError("no questions to compute an interval from")
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(N_RESAMPLES)
    step = max(1, 2_000_000 // len(data))
    for begin in range(0, N_RESAMPLES, step):
        n = min(step, N_RESAMPLES - begin)
        means[begin : begin + n] = data[rng.integers(0, len(data), (n, len(data)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(data.mean()), float(low), float(high), len(data))


def paired_difference(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the mean of ``a - b`` with its paired bootstrap interval.

    Args:
        a: one value per question.
        b: the values of the other method for the same questions, in the same order.
        seed: of the resampling.
    """
    if len(a) != len(b):
        raise UserError(f"paired values must be equally many, got {len(a)} and {len(b)}")
    return bootstrap_mean([x - y for x, y in zip(a, b, strict=True)], seed=seed)
