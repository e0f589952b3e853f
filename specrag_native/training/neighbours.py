"""Passages near a text or from the same article: where hard distractors come from.

Law: the same passages and text give the same neighbours in the same order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from specrag_native.types import Passage


class Neighbours:
    """Finds passages by TF-IDF similarity and by title."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._passages = passages
        self._by_title: dict[str, list[Passage]] = defaultdict(list)
        for passage in passages:
            if passage.title:
                self._by_title[passage.title].append(passage)
        self._vectoriser: Any = TfidfVectorizer(
            stop_words="english", sublinear_tf=True, max_df=0.2, dtype=np.float32
        )
        texts = [f"{p.title} {p.text}" for p in passages]
        try:
            self._matrix: Any = self._vectoriser.fit_transform(texts).T.tocsr()
        except ValueError:  # a handful of passages without a word of their own
            self._matrix = None

    def similar(self, text: str, n: int) -> list[Passage]:
        """Return up to ``n`` passages with most in common with ``text``, best first."""
        import numpy as np

        if self._matrix is None:
            return list(self._passages[:n])
        scores = (self._vectoriser.transform([text]) @ self._matrix).toarray()[0]
        n = min(n, len(scores))
        best = np.argpartition(-scores, n - 1)[:n]
        best = best[np.lexsort((best, -scores[best]))]
        return [self._passages[i] for i in best if scores[i] > 0]

    def same_title(self, passage: Passage) -> Sequence[Passage]:
        """Return all passages with this passage's title; empty for one without a title."""
        return self._by_title.get(passage.title, ())
