"""From a question to passages: meaning and words, fused by rank.

Law: two rankings (cosine of embeddings, BM25 of words) are fused by reciprocal ranks, so neither
needs to know the scale of the other; what is returned is in the database now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from specrag_native.errors import ConfigError, QuestionError
from specrag_native.protocol import Embedder
from specrag_native.retrieval import fulltext, vector_index
from specrag_native.retrieval.store import Store, fetch_passages, normalised, read_state
from specrag_native.types import Hit

if TYPE_CHECKING:
    import sqlite3

    from specrag_native.types import FloatArray

Mode = Literal["hybrid", "dense", "words"]
"""Both rankings, the embeddings alone, or BM25 alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """How passages are ranked."""

    mode: Mode = "hybrid"
    pool: int = 100
    """Passages taken from each ranking before they are fused."""
    rrf_k: float = 10.0
    """Constant of reciprocal-rank fusion: larger values weigh the first ranks less."""
    dense_weight: float = 1.0
    """Weight of the ranking by embeddings."""
    words_weight: float = 0.5
    """Weight of the ranking by words; chosen with ``rrf_k`` by nDCG@10 on SciFact and recall on
    two sets of questions, where it was the best of the values tried or within noise of it."""
    title_weight: float = 2.0
    """Weight of a word in the title against one in the text (BM25)."""
    duplicate_cosine: float = 0.98
    """A hit nearer than this to a better one is left out; above 1 keeps everything."""

    def __post_init__(self) -> None:
        if self.mode not in ("hybrid", "dense", "words"):
            raise ConfigError(f"retrieval mode must be hybrid, dense or words, got {self.mode!r}")
        if self.pool < 1:
            raise ConfigError(f"retrieval pool must be at least 1 passage, got {self.pool}")
        if self.rrf_k <= 0:
            raise ConfigError(f"rrf_k must be above 0, got {self.rrf_k}")


class Retriever:
    """Finds the passages of one index that a question needs; may be shared by threads."""

    def __init__(
        self, store: Store, embedder: Embedder, *, options: RetrievalOptions | None = None
    ) -> None:
        store.require_embedder(embedder.name)
        self.options = options or RetrievalOptions()
        self._store = store
        self._embedder = embedder
        self._lock = threading.Lock()
        self._loaded: vector_index.Loaded | None = None

    def search(self, question: str, n: int = 10) -> list[Hit]:
        """Return the ``n`` best passages for ``question``, best first; fewer when there are fewer.

        Raises :class:`QuestionError` for an empty question.
        """
        if not question.strip():
            raise QuestionError("the question is empty: ask something")
        vector = None
        if self.options.mode != "words":
            vector = self._embedder.embed([question])[0]
        return self.search_with(question, vector, n)

    def search_with(self, question: str, vector: FloatArray | None, n: int = 10) -> list[Hit]:
        """Return the ``n`` best passages for a question whose embedding is at hand.

        ``vector`` is float32 of shape ``(d,)``; ``None`` ranks by words alone.
        """
        if n < 1:
            raise ConfigError(f"the number of passages must be at least 1, got {n}")
        with self._store.read() as connection:
            ranked = self._rank(connection, question, vector, max(self.options.pool, 2 * n))
            return self._hits(connection, ranked, n)

    def warm(self) -> None:
        """Load the derived index now instead of at the first search."""
        with self._store.read() as connection:
            self._current(connection)

    def _rank(
        self, connection: sqlite3.Connection, question: str, vector: FloatArray | None, pool: int
    ) -> list[tuple[int, float]]:
        options = self.options
        rankings: list[tuple[float, Sequence[int]]] = []
        if vector is not None and options.mode != "words":
            loaded = self._current(connection)
            unit = normalised(vector[None, :])[0]
            rankings.append((options.dense_weight, _ids(loaded.search(unit, pool))))
        if options.mode != "dense":
            found = fulltext.search_text(
                connection,
                question,
                limit=pool,
                title_weight=options.title_weight,
                # Where words are all there is, a slow answer is better than none.
                budget=None if options.mode == "words" else fulltext.BUDGET,
            )
            rankings.append((options.words_weight, _ids(found)))
        return fuse(rankings, k=options.rrf_k)

    def _hits(
        self, connection: sqlite3.Connection, ranked: Sequence[tuple[int, float]], n: int
    ) -> list[Hit]:
        """Read passages in rank order until ``n`` different ones are found."""
        hits: list[Hit] = []
        step = n + n // 2 + 4
        for i in range(0, len(ranked), step):
            block = ranked[i : i + step]
            rows = fetch_passages(connection, [key for key, _ in block])
            for key, score in block:
                if key not in rows:
                    continue
                passage, vector = rows[key]
                hit = Hit(passage=passage, score=score, vector=vector)
                if not self._is_duplicate(hit, hits):
                    hits.append(hit)
                if len(hits) == n:
                    return hits
        return hits

    def _is_duplicate(self, hit: Hit, better: Iterable[Hit]) -> bool:
        limit = self.options.duplicate_cosine
        return (
            any(
                float(hit.vector @ other.vector) > limit or hit.passage.text == other.passage.text
                for other in better
            )
            and limit <= 1
        )

    def _current(self, connection: sqlite3.Connection) -> vector_index.Loaded:
        """Return the derived index for the state this transaction sees."""
        state = read_state(connection)
        loaded = self._loaded
        if loaded is not None and loaded.state == state:
            return loaded
        with self._lock:
            loaded = self._loaded
            if loaded is None or loaded.state != state:
                loaded = vector_index.load(
                    connection, self._store.directory, state, dim=self._store.dim, previous=loaded
                )
                self._loaded = loaded
            return loaded


def fuse(rankings: Sequence[tuple[float, Sequence[int]]], *, k: float) -> list[tuple[int, float]]:
    """Return ids with the sum of ``weight / (k + rank)`` over weighted rankings, best first.

    Ranks count from 1 (Cormack, Clarke and Büttcher 2009). Equal sums keep the order of ids.
    """
    scores: dict[int, float] = {}
    for weight, ids in rankings:
        for rank, key in enumerate(ids, start=1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def scores_by_document(hits: Sequence[Hit]) -> Mapping[str, float]:
    """Return the best score of each document among ``hits``, best first."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.passage.document, hit.score)
    return best


def _ids(found: Sequence[tuple[int, float]]) -> list[int]:
    return [key for key, _ in found]
