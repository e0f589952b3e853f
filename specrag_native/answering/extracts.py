"""The sentences of passages that are most like a question: much evidence in few tokens.

Law: an extract is whole sentences of one passage, word for word and in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from specrag_native.answering.budget import tokens_in
from specrag_native.sentences import Span, sentence_spans
from specrag_native.types import Passage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray


def extracts(
    question: FloatArray,
    passages: Sequence[Passage],
    embed: Callable[[Sequence[str]], FloatArray],
    *,
    tokens: int,
) -> list[tuple[Passage, Passage]]:
    """Return sentences of passages as short passages, each with the passage it is from.

    Sentences are taken in order of their similarity to the question, each that still fits. The
    passage of the first comes first.

    Args:
        question: the question's vector, float32 of shape ``(d,)``, L2-normalised.
        passages: what sentences are taken from.
        embed: returns vectors of texts, float32 of shape ``(n, d)``, L2-normalised.
        tokens: about how many tokens all extracts may have together, titles included.
    """
    spans = [(i, span) for i, p in enumerate(passages) for span in sentence_spans(p.text)]
    if not spans:
        return []
    vectors = embed([_titled(passages[i], passages[i].text[a:b]) for i, (a, b) in spans])
    likeness = (vectors @ question).tolist()
    taken: dict[int, list[Span]] = {}
    left = float(tokens)
    for at in sorted(range(len(spans)), key=lambda at: -likeness[at]):
        i, (a, b) = spans[at]
        title = () if i in taken else (passages[i].title,)
        cost = tokens_in(*title, passages[i].text[a:b])
        if cost <= left:
            left -= cost
            taken.setdefault(i, []).append((a, b))
    return [(_extract(passages[i], sorted(found)), passages[i]) for i, found in taken.items()]


def _titled(passage: Passage, sentence: str) -> str:
    return f"{passage.title}. {sentence}" if passage.title else sentence


def _extract(passage: Passage, spans: Sequence[Span]) -> Passage:
    """Return some sentences as a passage; where a line ended between two, one ends."""
    text, end = "", 0
    for a, b in spans:
        if text:
            text += "\n" if "\n" in passage.text[end:a] else " "
        text, end = text + passage.text[a:b], b
    return dataclasses.replace(passage, text=text)
