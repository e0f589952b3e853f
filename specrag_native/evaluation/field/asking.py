"""A yes/no question to a model, answered by log-probability; and what both systems share.

Law: a judgement is P(yes) / (P(yes) + P(no)), read from one forward pass for all that is judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from specrag_native import prompts
from specrag_native.answering.verifier import log_add
from specrag_native.errors import ContextFullError, QuestionError
from specrag_native.protocol import Engine, Prompt, Segment
from specrag_native.types import Answer, Hit, Passage, Question, Usage


def passage_text(passage: Passage) -> str:
    """Return a passage as every prompt words it."""
    heading = f"Passage: {passage.title}\n" if passage.title else "Passage:\n"
    return f"{heading}{passage.text.strip()}"


def yes_no(engine: Engine, user: Sequence[str]) -> tuple[list[float], Usage]:
    """Return how far the model says yes to each question, 0..1, and what that cost.

    Args:
        engine: the model.
        user: what the user's turn says, once per question.
    """
    if not user:
        return [], Usage()
    pairs: list[Prompt] = []
    for text in user:
        for word in (prompts.YES, prompts.NO):
            pairs.append(
                engine.chat(
                    [
                        ("user", (prompts.plain(text),)),
                        ("assistant", (Segment(word, scored=True),)),
                    ]
                )
            )
    batch = engine.score(pairs)
    out = []
    for i in range(len(user)):
        yes = batch[2 * i].segments[0].logprob.logprob_sum
        no = batch[2 * i + 1].segments[0].logprob.logprob_sum
        out.append(math.exp(yes - log_add(yes, no)))
    return out, batch.usage


Search = Callable[[str], list[Hit]]
"""Finds passages for the text of a question."""


def passages_for(
    question: Question, hits: Sequence[Hit] | None, search: Search | None
) -> tuple[list[Passage], float]:
    """Return the passages of a question, given or retrieved, and the seconds of retrieving."""
    begin = time.perf_counter()
    if hits is None:
        if search is None:
            raise QuestionError("there is no index to search: give hits or open an index")
        hits = search(question.text)
    return [h.passage for h in hits], time.perf_counter() - begin


def finished(
    question: Question,
    text: str,
    confidence: float,
    *,
    timings: dict[str, float],
    usage: Usage,
    model: str,
) -> Answer:
    """Return the answer of a baseline; an empty one abstains."""
    return Answer(
        question=question.text,
        answer=text or prompts.ABSTAIN_TEXT,
        rationale="",
        confidence=confidence,
        decided_by="standard" if text else "abstain",
        timings=timings,
        usage={"verifier": usage},
        models={"verifier": model},
    )


def too_long(error: ContextFullError) -> QuestionError:
    """Return what a user is told when a question with its passages does not fit."""
    return QuestionError(
        f"the question with its passages needs {error.n_tokens} tokens and {error.n_ctx} fit: "
        "shorten the question, or lower --top"
    )
