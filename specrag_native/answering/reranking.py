"""A second ranking by a cross-encoder: of the hits before they are drafted, and of sentences.

Law: it moves hits and leaves none out; whoever reads them all reads the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from specrag_native.answering.budget import tokens_in
from specrag_native.answering.confidence import logistic
from specrag_native.answering.extracts import Likeness
from specrag_native.answering.run import Models, Run
from specrag_native.config import Config
from specrag_native.types import Passage


def rerank(run: Run, models: Models, config: Config) -> None:
    """Put the hits that answer the question best first; nothing without ``config.rerank``.

    A hit's ``score`` is then the cross-encoder's logit. The order stays as it was where the time
    does not suffice.
    """
    if not config.rerank or len(run.hits) < 2:
        return
    texts = [reading_text(hit.passage) for hit in run.hits]
    if not run.budget.fits("reranker", tokens_in(*texts)):
        run.budget.leave_out("reranking")
        return
    with run.stage("rerank"), run.may_be_cut("reranking"):
        ranking = models.reranker.rank(run.question.text, texts, cancel=run.flag)
        run.add("reranker", ranking.usage)
        scored = zip(run.hits, map(float, ranking.scores), strict=True)
        run.hits = sorted(
            (dataclasses.replace(hit, score=score) for hit, score in scored),
            key=lambda hit: -hit.score,
        )
        run.ranked = True
        run.relevance = logistic(run.hits[0].score)


def sentence_likeness(run: Run, models: Models, config: Config) -> Likeness:
    """Return what tells how likely sentences are to answer the question.

    With ``config.rerank`` the cross-encoder reads the question with each; else it is the cosine of
    their vectors with the question's.
    """

    def read(texts: Sequence[str]) -> Sequence[float]:
        ranking = models.reranker.rank(run.question.text, texts, cancel=run.flag)
        run.add("reranker", ranking.usage)
        return [float(score) for score in ranking.scores]

    def embedded(texts: Sequence[str]) -> Sequence[float]:
        assert run.vector is not None, "passages are drafted before they are read"
        return [float(x) for x in models.embedder.embed(texts) @ run.vector]

    return read if config.rerank else embedded


def reading_text(passage: Passage) -> str:
    """Return what a cross-encoder reads of a passage: its title as a sentence, then its text."""
    return f"{passage.title}. {passage.text}" if passage.title else passage.text
