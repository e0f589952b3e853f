"""Questions that take several passages: whether one does, and which passage completes another.

The second passage of such a question is seldom like the question itself: it is about something that
only the first one names. A hop ranker, a cross-encoder, reads the question with the first passage
in place of a question; and of the question alone it says whether one passage will do.

Law: it says what to read together, never what is true.
"""

from __future__ import annotations

import math

from specrag_native.answering.budget import tokens_in
from specrag_native.answering.confidence import logistic
from specrag_native.answering.reranking import reading_text
from specrag_native.answering.run import Models, Run
from specrag_native.config import Config
from specrag_native.types import Passage

LINK = 2.0
"""What a link by titles adds to the score of a passage, a logit."""
CANDIDATES = 0.6
"""Share of the other passages, the best by the reranker, that are looked at, besides linked ones.
Of 153 questions of the tuning halves that take two passages, the two were found for 96 so, and for
97 when all were looked at, which took a third longer."""


def look_for_hops(run: Run, models: Models, config: Config) -> None:
    """Find the passages that are to be read together, where a question takes several.

    The first is the best hit, the second the one that completes it.
    """
    above, task = config.multihop_above, run.question.task
    if above is None or "pair" not in config.repair_steps or task in ("claim", "choice"):
        return
    if len(run.hits) < 2 or not run.ranked:
        return
    first, *others = [hit.passage for hit in run.hits]
    linked = run.links.linked[first.id]
    best = math.ceil(CANDIDATES * len(others))
    others = [*others[:best], *(p for p in others[best:] if p.id in linked)]
    so_far = question_with(run.question.text, first)
    texts = [reading_text(passage) for passage in others]
    with run.stage("hops"), run.may_be_cut("looking for passages that belong together"):
        alone = models.hop_ranker.rank(run.question.text, [""], cancel=run.flag)
        run.add("hop_ranker", alone.usage)
        if logistic(float(alone.scores[0])) < above:
            return
        if not run.budget.fits("hop_ranker", tokens_in(*texts, *[so_far] * len(texts))):
            run.budget.leave_out("looking for passages that belong together")
            return
        ranking = models.hop_ranker.rank(so_far, texts, cancel=run.flag)
        run.add("hop_ranker", ranking.usage)
        scores = [
            float(score) + LINK * (passage.id in linked)
            for passage, score in zip(others, ranking.scores, strict=True)
        ]
        run.hops = (first, others[scores.index(max(scores))])


def question_with(question: str, first: Passage) -> str:
    """Return what a hop ranker reads in place of a question: it with the first passage."""
    return f"{question} {reading_text(first)}"
