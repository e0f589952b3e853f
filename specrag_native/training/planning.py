"""What a fit computes when: which groups make a step, in which layout, at which learning rate.

Law: the plan follows from the settings and the groups alone, so that a run that was stopped goes on
with the steps it would have had.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from specrag_native.training.fit_options import FitOptions
from specrag_native.training.loss import Layout, filled

Batch = list[tuple[int, Layout]]
"""Groups, by number, that are computed in one pass, each in a layout."""

_WINDOW = 6000
"""Groups among which those of like lengths are sought."""
_STRATA = 3
"""Batches of a step: one of short, one of middling, one of long groups."""


def rate_at(step: int, n_steps: int, options: FitOptions) -> float:
    """Return the learning rate of a step (counted from 0)."""
    if step < options.warmup:
        return options.rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, n_steps - options.warmup)
    return options.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done))))


def plan(lengths: Sequence[int], options: FitOptions) -> list[list[Batch]]:
    """Return the batches of each step.

    Args:
        lengths: tokens of each group.
        options: with ``batch_tokens``, a step is three batches of groups of like lengths, and
            ``groups`` is not used; without, it is ``groups`` groups, each a batch of its own.
    """
    total = max(1, round(options.epochs * len(lengths)))
    if not options.batch_tokens:
        order: Batch = []
        for numbers, rng in _epochs(len(lengths), total, options.seed):
            order += [(n, _layout(rng, options)) for n in numbers]
        alone = [[one] for one in order]
        return [alone[i : i + options.groups] for i in range(0, total, options.groups)]
    steps: list[list[Batch]] = []
    for numbers, rng in _epochs(len(lengths), total, options.seed):
        for start in range(0, len(numbers), _WINDOW):
            chosen = numbers[start : start + _WINDOW]
            for step in _steps(chosen, lengths, options.batch_tokens, rng):
                steps.append([[(n, _layout(rng, options)) for n in batch] for batch in step])
    return steps


def _epochs(n_groups: int, total: int, seed: int) -> Iterator[tuple[list[int], random.Random]]:
    """Yield the groups of each epoch in their order, the last cut to ``total`` in all."""
    for epoch in range(math.ceil(total / n_groups)):
        rng = random.Random(f"{seed} {epoch}")
        numbers = list(range(n_groups))
        rng.shuffle(numbers)
        yield numbers[: total - epoch * n_groups], rng


def _layout(rng: random.Random, options: FitOptions) -> Layout:
    return "standalone" if rng.random() < options.standalone else "exact"


def _steps(
    numbers: Sequence[int], lengths: Sequence[int], most: int, rng: random.Random
) -> Iterator[list[list[int]]]:
    """Yield steps of batches: groups of like lengths, filled up to at most ``most`` tokens."""
    batches: list[list[int]] = []
    for n in sorted(numbers, key=lambda n: lengths[n]):
        if batches and filled(lengths[n]) * (len(batches[-1]) + 1) <= most:
            batches[-1].append(n)
        else:
            batches.append([n])
    each = -(-len(batches) // _STRATA)
    strata = [batches[i : i + each] for i in range(0, len(batches), each)]
    for stratum in strata:
        rng.shuffle(stratum)
    for i in range(each):
        yield [stratum[i] for stratum in strata if i < len(stratum)]
