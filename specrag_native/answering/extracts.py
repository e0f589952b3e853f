"""The sentences of passages that are most likely to answer a question: much evidence in few tokens.

Law: an extract is whole sentences of one passage, word for word and in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from specrag_native.answering.budget import tokens_in
from specrag_native.sentences import Span, sentence_spans
from specrag_native.types import Passage

Likeness = Callable[[Sequence[str]], Sequence[float]]
"""Returns how likely each of some texts is to answer the question; only their order counts."""


def extracts(
    passages: Sequence[Passage], likeness: Likeness, *, tokens: int
) -> list[tuple[Passage, Passage]]:
    """Return sentences of passages as short passages, each with the passage it is from.

    Sentences are taken in order of their likeness, each that still fits. The passage of the first
    comes first.

    Args:
        passages: what sentences are taken from.
        likeness: judges each sentence with its title; never called with none.
        tokens: about how many tokens all extracts may have together, titles included.
    """
    spans = [(i, span) for i, p in enumerate(passages) for span in sentence_spans(p.text)]
    if not spans:
        return []
    alike = likeness([_titled(passages[i], passages[i].text[a:b]) for i, (a, b) in spans])
    taken: dict[int, list[Span]] = {}
    left = float(tokens)
    for at in sorted(range(len(spans)), key=lambda at: -alike[at]):
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
