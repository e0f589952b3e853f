"""A second look at the best hits by a language model that is loaded anyway.

Law: no further model: the reranker asks the drafter or the verifier how probable the question is
after each passage (query likelihood; Sachan et al. 2022, "Improving Passage Retrieval with
Zero-Shot Question Generation") and fuses that order with the retriever's by reciprocal ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from specrag_native.errors import ConfigError
from specrag_native.protocol import Engine, Prompt, Segment
from specrag_native.retrieval.hybrid import fuse
from specrag_native.types import Hit, Passage

_ASK = "\n\nA question that this passage answers: "


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """How hits are ranked again."""

    depth: int = 20
    """Hits the model reads; those below keep their places."""
    weight: float = 1.0
    """Weight of the model's order against the retriever's, which has 1."""
    rrf_k: float = 10.0
    """Constant of reciprocal-rank fusion: small, because the lists are short."""

    def __post_init__(self) -> None:
        if self.depth < 1 or self.weight < 0 or self.rrf_k <= 0:
            raise ConfigError("reranking needs depth >= 1, weight >= 0 and rrf_k > 0")


class Reranker:
    """Ranks hits again by the log-probability of the question after each passage."""

    def __init__(self, engine: Engine, *, options: RerankOptions | None = None) -> None:
        self._engine = engine
        self.options = options or RerankOptions()

    def rerank(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return ``hits`` in their new order; ``score`` is the fused score of both orders."""
        options = self.options
        head, tail = hits[: options.depth], hits[options.depth :]
        if len(head) < 2:
            return list(hits)
        scores = self._engine.score([_prompt(question, hit.passage) for hit in head])
        likely = [score.segments[0].logprob.logprob_mean for score in scores]
        by_model = sorted(range(len(head)), key=lambda i: -likely[i])
        order = fuse([(1.0, range(len(head))), (options.weight, by_model)], k=options.rrf_k)
        moved = [replace(head[i], score=score) for i, score in order]
        floor = moved[-1].score
        # Those below keep their order and stay below.
        below = [replace(hit, score=floor / (2 + i)) for i, hit in enumerate(tail)]
        return moved + below


def _prompt(question: str, passage: Passage) -> Prompt:
    head = f"{passage.title}\n{passage.text}" if passage.title else passage.text
    return (Segment(head + _ASK), Segment(question.strip(), scored=True))
