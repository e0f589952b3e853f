"""Texts on their way to the embedder.

Law: a text whose vector is stored or already waiting is not embedded; every batch is stored as soon
as it is computed, so a killed run loses one batch at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from specrag_native.errors import ContextFullError
from specrag_native.protocol import Embedder
from specrag_native.retrieval.store_writer import StoreWriter

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

_MAX_CHARS = 8 * 1024 * 1024


class EmbeddingQueue:
    """Collects texts by hash and embeds those whose vectors the index lacks.

    ``tick`` is told after each batch which share of the waiting texts is done; ``check`` may raise
    between batches.
    """

    def __init__(
        self,
        embedder: Embedder,
        writer: StoreWriter,
        *,
        batch: int,
        tick: Callable[[float], None] = lambda share: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._embedder = embedder
        self._writer = writer
        self._batch = max(1, batch)
        self._tick = tick
        self._check = check
        self._texts: dict[bytes, str] = {}
        self._chars = 0
        self.embedded = 0
        """Texts the embedder was given."""
        self.seen = 0
        """Texts that were embedded or found embedded."""

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be worth a call."""
        return len(self._texts) >= 4 * self._batch or self._chars > _MAX_CHARS

    def add(self, key: bytes, text: str) -> None:
        """Let a text wait."""
        if key not in self._texts:
            self._chars += len(text)
        self._texts[key] = text
        self.seen += 1

    def run(self) -> None:
        """Embed and store everything that waits."""
        known = self._writer.known_vectors(self._texts)
        missing = [(key, text) for key, text in self._texts.items() if key not in known]
        # Neighbours of one length waste the least padding and fill batches evenly.
        missing.sort(key=lambda pair: len(pair[1]))
        for i in range(0, len(missing), self._batch):
            self._check()
            part = missing[i : i + self._batch]
            vectors = embed_all(self._embedder, [text for _, text in part])
            self._writer.add_vectors([key for key, _ in part], vectors)
            self.embedded += len(part)
            self._tick(min(1.0, (i + len(part)) / len(missing)))
        self._texts.clear()
        self._chars = 0


def embed_all(embedder: Embedder, texts: Sequence[str]) -> FloatArray:
    """Embed ``texts``; one that is longer than the model's context is embedded by its beginning."""
    import numpy as np

    try:
        vectors = embedder.embed(texts)
    except ContextFullError:
        if len(texts) > 1:
            return np.concatenate([embed_all(embedder, [text]) for text in texts])
        if len(texts[0]) < 16:
            raise
        return embed_all(embedder, [texts[0][: len(texts[0]) // 2]])
    return np.nan_to_num(np.asarray(vectors, dtype=np.float32))
