"""Models that write nothing: embedders and cross-encoders, behind their protocols.

Law: a model that cannot fill a role is refused when it is given that role.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specrag_native.engine import NativeEngine
from specrag_native.errors import ModelFileError
from specrag_native.protocol import CancelFlag, Ranking

if TYPE_CHECKING:
    from specrag_native.types import FloatArray


class NativeEmbedder:
    """An embedding GGUF behind the :class:`~specrag_native.protocol.Embedder` protocol."""

    def __init__(self, engine: NativeEngine) -> None:
        if not engine.model.is_embedding or engine.model.is_cross_encoder:
            raise ModelFileError(
                f"{engine.model.path} ({engine.model.architecture}) is no embedding model: choose "
                "one for --embedder, such as all-minilm-l6-v2"
            )
        self._engine = engine

    @property
    def name(self) -> str:
        """Kind and digest of the model; an index knows its vectors whatever the file is called."""
        facts = self._engine.model
        return f"{facts.architecture}-{facts.n_embd}:{self._engine.file_digest[:16]}"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return L2-normalised vectors, float32 of shape ``(len(texts), d)``."""
        return self._engine.embed(texts)


class NativeCrossEncoder:
    """A GGUF that scores pairs, behind the :class:`~specrag_native.protocol.CrossEncoder` protocol.

    Pairs are cut as those were that the project's own ones were trained with.

    Args:
        engine: the model.
        question_tokens: of a question, what is longer is cut at its end.
        pair_tokens: of a pair with the model's own tokens, likewise.
    """

    QUESTION_TOKENS = 64
    PAIR_TOKENS = 192

    def __init__(
        self,
        engine: NativeEngine,
        *,
        question_tokens: int = QUESTION_TOKENS,
        pair_tokens: int = PAIR_TOKENS,
    ) -> None:
        if not engine.model.is_cross_encoder:
            raise ModelFileError(
                f"{engine.model.path} ({engine.model.architecture}) is no cross-encoder: choose "
                "one for --reranker, such as specrag-reranker-22m"
            )
        self._engine = engine
        self._question_tokens, self._pair_tokens = question_tokens, pair_tokens

    @property
    def name(self) -> str:
        """The model's file name."""
        return self._engine.name

    def rank(
        self, question: str, texts: Sequence[str], *, cancel: CancelFlag | None = None
    ) -> Ranking:
        """Return how well each text answers a question; see :class:`Ranking`."""
        return self._engine.rank(
            question,
            texts,
            first_tokens=self._question_tokens,
            pair_tokens=self._pair_tokens,
            cancel=cancel,
        )
