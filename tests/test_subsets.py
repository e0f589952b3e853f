"""Laws of clustering and of drawing subsets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from specrag_native.answering.subsets import cluster, condition, draw_subsets
from specrag_native.errors import ConfigError
from tests.fakes import hits

QUESTION = np.ones(8, dtype=np.float32) / np.sqrt(8.0)


@given(
    n=st.integers(1, 14),
    m=st.integers(1, 12),
    k=st.integers(1, 6),
    seed=st.integers(0, 3),
    strategy=st.sampled_from(["coverage", "random", "one-cluster", "unclustered"]),
)
def test_subsets_are_unique_and_of_size_k(n: int, m: int, k: int, seed: int, strategy: str) -> None:
    found = hits(n, seed=seed)
    if k > n:
        with pytest.raises(ConfigError, match="passages per draft"):
            draw_subsets(found, QUESTION, m=m, k=k, seed=seed)
        return
    subsets = draw_subsets(found, QUESTION, m=m, k=k, seed=seed, strategy=strategy)  # type: ignore[arg-type]
    assert 1 <= len(subsets) <= m
    assert len({frozenset(s.ids) for s in subsets}) == len(subsets)
    if strategy != "one-cluster":
        assert all(len(set(s.ids)) == k for s in subsets)


def test_coverage_uses_every_passage_of_a_cluster_before_one_twice() -> None:
    found = hits(10, seed=1)
    vectors = condition(np.stack([h.vector for h in found]), QUESTION, "product")
    groups = cluster(vectors, 2, seed=0)
    subsets = draw_subsets(found, QUESTION, m=5, k=2)
    uses = Counter(i for s in subsets for i in s.ids)
    for group in groups:
        counts = [uses[found[row].passage.id] for row in group]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == 5


def test_every_subset_has_one_passage_of_each_cluster() -> None:
    found = hits(10, seed=2)
    vectors = condition(np.stack([h.vector for h in found]), QUESTION, "product")
    label = {
        found[row].passage.id: g
        for g, group in enumerate(cluster(vectors, 3, seed=0))
        for row in group
    }
    for strategy in ("coverage", "random"):
        for s in draw_subsets(found, QUESTION, m=5, k=3, strategy=strategy):  # type: ignore[arg-type]
            assert sorted(label[i] for i in s.ids) == [0, 1, 2]


def test_one_cluster_subsets_stay_inside_a_cluster() -> None:
    found = hits(10, seed=2)
    vectors = condition(np.stack([h.vector for h in found]), QUESTION, "product")
    label = {
        found[row].passage.id: g
        for g, group in enumerate(cluster(vectors, 2, seed=0))
        for row in group
    }
    for s in draw_subsets(found, QUESTION, m=5, k=2, strategy="one-cluster"):
        assert len({label[i] for i in s.ids}) == 1


def test_the_same_seed_gives_the_same_subsets() -> None:
    found = hits(10)
    once = draw_subsets(found, QUESTION, m=5, k=2, strategy="random", seed=7)
    again = draw_subsets(found, QUESTION, m=5, k=2, strategy="random", seed=7)
    other = draw_subsets(found, QUESTION, m=5, k=2, strategy="random", seed=8)
    assert once == again
    assert once != other


def test_m_does_not_shrink_to_the_smallest_cluster() -> None:
    found = hits(10, seed=3)
    assert len(draw_subsets(found, QUESTION, m=5, k=2, strategy="random")) == 5
    assert len(draw_subsets(found, QUESTION, m=5, k=2, strategy="coverage")) == 5


def test_passages_of_a_subset_keep_their_rank() -> None:
    for s in draw_subsets(hits(10), QUESTION, m=10, k=4):
        ranks = [int(i[1:]) for i in s.ids]
        assert ranks == sorted(ranks)


def test_equal_vectors_still_give_subsets_of_size_k() -> None:
    found = hits(1) * 1 + hits(6)
    same = [type(h)(h.passage, h.score, found[0].vector) for h in found[1:]]
    subsets = draw_subsets(same, QUESTION, m=3, k=2)
    assert len(subsets) == 3
    assert all(len(set(s.ids)) == 2 for s in subsets)


def test_k_is_two_or_fewer_when_nobody_says() -> None:
    assert len(draw_subsets(hits(5), QUESTION, m=1, k=None)[0].ids) == 2
    assert len(draw_subsets(hits(1), QUESTION, m=1, k=None)[0].ids) == 1
    assert draw_subsets([], QUESTION, m=5, k=None) == []


def test_conditioning_gives_unit_vectors_and_residual_is_orthogonal_to_the_question() -> None:
    vectors = np.stack([h.vector for h in hits(5)])
    for how in ("product", "residual", "plain"):
        out = condition(vectors, QUESTION, how)  # type: ignore[arg-type]
        assert_allclose(np.linalg.norm(out, axis=1), 1.0, atol=1e-5)
        assert out.dtype == np.float32
    assert_allclose(condition(vectors, QUESTION, "residual") @ QUESTION, 0.0, atol=1e-5)
    assert_allclose(condition(vectors, QUESTION, "plain"), vectors, atol=1e-6)
