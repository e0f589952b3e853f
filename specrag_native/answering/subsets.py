"""Perspectives and subsets: which passages each draft reads (paper section 3.2).

Law: the same seed, vectors and settings give the same subsets, whatever was asked before.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from specrag_native.config import Conditioning, SubsetStrategy
from specrag_native.errors import ConfigError
from specrag_native.types import Hit, Passage, Subset

if TYPE_CHECKING:
    from specrag_native.types import FloatArray


def preload() -> None:
    """Import what clustering needs, which takes a second or two the first time."""
    import sklearn.cluster  # noqa: F401


def condition(vectors: FloatArray, question: FloatArray, how: Conditioning) -> FloatArray:
    """Condition passage vectors on the question's, without a model pass.

    Args:
        vectors: float32 of shape ``(n, d)``, L2-normalised.
        question: float32 of shape ``(d,)``, L2-normalised.
        how: see :class:`~specrag_native.config.Config`.

    Returns:
        float32 of shape ``(n, d)``, L2-normalised (zero rows stay zero).
    """
    import numpy as np

    if how == "product":
        out = vectors * question
    elif how == "residual":
        out = vectors - (vectors @ question)[:, None] * question
    else:
        out = vectors
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.where(norms > 1e-12, norms, 1.0), dtype=np.float32)


def cluster(vectors: FloatArray, k: int, *, seed: int) -> list[list[int]]:
    """Group rows into at most ``k`` clusters by k-means.

    Returns:
        Row indices per cluster, ascending, in order of their first row; fewer than ``k`` clusters
        when there are fewer distinct vectors.
    """
    import numpy as np

    n_distinct = len(np.unique(vectors, axis=0))
    k = min(k, n_distinct)
    if k <= 1:
        return [list(range(len(vectors)))]
    from sklearn.cluster import KMeans

    labels = KMeans(n_clusters=k, n_init=4, random_state=seed).fit_predict(vectors)
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(int(label), []).append(row)
    return list(groups.values())


def _split_largest(clusters: list[list[int]], k: int) -> list[list[int]]:
    """Cut the largest clusters until there are ``k``, so that a subset always has k passages."""
    clusters = [list(c) for c in clusters]
    while len(clusters) < k:
        largest = max(clusters, key=len)
        clusters.append(largest[1::2])
        largest[:] = largest[0::2]
    return clusters


def _best_first(orders: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield one element per order, combinations with small indices first."""
    start = (0,) * len(orders)
    heap = [(0, start)]
    seen = {start}
    while heap:
        cost, index = heapq.heappop(heap)
        yield tuple(order[i] for order, i in zip(orders, index, strict=True))
        for axis, order in enumerate(orders):
            if index[axis] + 1 < len(order):
                step = (*index[:axis], index[axis] + 1, *index[axis + 1 :])
                if step not in seen:
                    seen.add(step)
                    heapq.heappush(heap, (cost + 1, step))


def _coverage(clusters: Sequence[Sequence[int]], m: int) -> list[tuple[int, ...]]:
    uses = {row: 0 for c in clusters for row in c}
    chosen: list[tuple[int, ...]] = []
    taken: set[frozenset[int]] = set()
    while len(chosen) < m:
        orders = [sorted(c, key=lambda row: (uses[row], row)) for c in clusters]
        combination = next((c for c in _best_first(orders) if frozenset(c) not in taken), None)
        if combination is None:
            break
        taken.add(frozenset(combination))
        chosen.append(combination)
        for row in combination:
            uses[row] += 1
    return chosen


def _random(clusters: Sequence[Sequence[int]], m: int, rng: random.Random) -> list[tuple[int, ...]]:
    possible = 1
    for c in clusters:
        possible *= len(c)
    chosen: dict[frozenset[int], tuple[int, ...]] = {}
    while len(chosen) < min(m, possible):
        combination = tuple(rng.choice(c) for c in clusters)
        chosen.setdefault(frozenset(combination), combination)
    return list(chosen.values())


def _within(rows: Sequence[int], k: int, m: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Draw up to ``m`` distinct sets of ``k`` rows."""
    k = min(k, len(rows))
    possible = 1
    for i in range(k):
        possible = possible * (len(rows) - i) // (i + 1)
    chosen: dict[frozenset[int], tuple[int, ...]] = {}
    while len(chosen) < min(m, possible):
        combination = tuple(sorted(rng.sample(list(rows), k)))
        chosen.setdefault(frozenset(combination), combination)
    return list(chosen.values())


def order_for_sharing(groups: Sequence[Sequence[Passage]]) -> list[tuple[Passage, ...]]:
    """Order the passages inside each group so that groups begin alike, as long as they can.

    The passage that most groups hold stands first in each of them, and so on among those that share
    it and among the others. What groups begin with in common is computed once.
    """
    out: list[tuple[Passage, ...]] = [()] * len(groups)

    def order(members: list[int], done: tuple[Passage, ...]) -> None:
        ids = {p.id for p in done}
        while members:
            uses: dict[str, int] = {}
            passages: dict[str, Passage] = {}
            for i in members:
                for passage in groups[i]:
                    if passage.id not in ids:
                        uses[passage.id] = uses.get(passage.id, 0) + 1
                        passages.setdefault(passage.id, passage)
            if not uses:
                break
            first = max(uses, key=lambda key: uses[key])
            with_first = [i for i in members if any(p.id == first for p in groups[i])]
            order(with_first, (*done, passages[first]))
            members = [i for i in members if i not in with_first]
        for i in members:
            out[i] = done

    order(list(range(len(groups))), ())
    return out


def draw_subsets(
    hits: Sequence[Hit],
    question: FloatArray,
    *,
    m: int,
    k: int | None,
    strategy: SubsetStrategy = "coverage",
    conditioning: Conditioning = "product",
    seed: int = 0,
) -> list[Subset]:
    """Draw up to ``m`` different subsets of ``k`` passages, one per perspective.

    Passages inside a subset keep their retrieval order.

    Args:
        hits: retrieved passages, best first.
        question: the question's vector, float32 of shape ``(d,)``.
        m: subsets wanted; fewer come back when fewer exist.
        k: passages per subset and number of clusters; ``None``: 2, or fewer when fewer were found.
        strategy: see :class:`~specrag_native.config.Config`.
        conditioning: see :class:`~specrag_native.config.Config`.
        seed: of k-means and of random draws.

    Raises:
        ConfigError: ``k`` is larger than the number of passages.
    """
    import numpy as np

    if not hits:
        return []
    if k is None:
        k = min(2, len(hits))
    elif k > len(hits):
        raise ConfigError(
            f"{k} passages per draft were asked for but only {len(hits)} were found: lower "
            "--per-draft or index more documents"
        )
    rng = random.Random(seed)
    rows = range(len(hits))
    if strategy == "unclustered":
        chosen = _within(rows, k, m, rng)
    else:
        vectors = condition(np.stack([h.vector for h in hits]), question, conditioning)
        clusters = cluster(vectors, k, seed=seed)
        if strategy == "one-cluster":
            chosen = []
            for c in sorted(clusters, key=len, reverse=True):
                chosen += _within(c, k, m - len(chosen), rng)
        else:
            clusters = _split_largest(clusters, k)
            chosen = _coverage(clusters, m) if strategy == "coverage" else _random(clusters, m, rng)
    return [Subset(tuple(hits[i].passage for i in sorted(c))) for c in chosen]
