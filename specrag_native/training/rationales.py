"""Extractive rationales: the stretch of a passage that holds the answer, and checks of rationales.

Law: an extracted rationale is copied from its passages word for word, a passage's title apart, so
that a drafter trained on it writes what can be cited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from specrag_native.evaluation.metrics import contains_answer, normalise
from specrag_native.sentences import sentence_spans
from specrag_native.types import Passage, Question
from specrag_native.words import content_words

MAX_WORDS = 20
"""Longest extracted rationale, without a title before it."""

_CLAUSE = re.compile(r"[,;:\u2013\u2014(]\s+|\s[\u2013\u2014-]\s")


def holds_answer(passages: Sequence[Passage], answers: Sequence[str]) -> bool:
    """Return whether an accepted answer stands in a passage, as whole words."""
    return any(contains_answer(f"{p.title}\n{p.text}", answers) for p in passages)


def answer_in(passages: Sequence[Passage], answers: Sequence[str]) -> str | None:
    """Return the first accepted answer, in the order given, that stands in a passage's text."""
    for answer in answers:
        if normalise(answer) and any(contains_answer(p.text, [answer]) for p in passages):
            return answer
    return None


def extract(
    question: Question,
    passages: Sequence[Passage],
    answer: str,
    *,
    is_span: bool,
    max_words: int = MAX_WORDS,
) -> str:
    """Return the evidence for ``answer``: one stretch of a sentence per passage that matters.

    Args:
        question: what is asked.
        passages: those that hold the evidence, at most three; every one gives a part.
        answer: what the evidence supports.
        is_span: whether the answer stands in the passages word for word; the part of a passage
            that holds it is chosen to show it.
        max_words: longest rationale, in words.
    """
    each = max(8, max_words // max(1, len(passages)))
    parts = []
    for passage in passages:
        target = answer if is_span and contains_answer(passage.text, [answer]) else ""
        if part := _part(question, passage, target, each):
            parts.append(part)
    return " ".join(parts)


def _part(question: Question, passage: Passage, target: str, max_words: int) -> str:
    wanted = {w.stem for w in content_words(question.text)}
    best, best_value = "", -1.0
    for start, end in sentence_spans(passage.text):
        sentence = passage.text[start:end]
        if target and not contains_answer(sentence, [target]):
            continue
        found = {w.stem for w in content_words(sentence)}
        value = len(wanted & found) - 0.01 * len(found)
        if value > best_value:
            best, best_value = " ".join(sentence.split()), value
    if not best and target:  # the answer crosses a sentence boundary
        return _part(question, passage, "", max_words)
    window = _window(best, target, wanted, max_words)
    return _titled(passage.title, window, target)


def _window(sentence: str, target: str, wanted: set[str], max_words: int) -> str:
    """Cut a sentence to ``max_words`` words around the target, at a clause's start if there is one.

    Without a target, the stretch with most of the wanted words is kept.
    """
    words = sentence.split(" ")
    if len(words) <= max_words:
        return sentence
    offsets = [0]
    for word in words:
        offsets.append(offsets[-1] + len(word) + 1)
    clause_starts = {0, *(m.end() for m in _CLAUSE.finditer(sentence))}
    best, best_value = " ".join(words[:max_words]), -1.0
    for first in range(len(words) - max_words // 2):
        text = " ".join(words[first : first + max_words])
        if target and not contains_answer(text, [target]):
            continue
        value = float(len(wanted & {w.stem for w in content_words(text)}))
        value += 0.9 * (offsets[first] in clause_starts) + 0.5 * (first == 0) - 0.001 * first
        if value > best_value:
            best, best_value = text, value
    return best.rstrip(",;:")


def _titled(title: str, text: str, target: str) -> str:
    """Put the title before a text that names nothing of it, so that it can be read on its own."""
    stems = {w.stem for w in content_words(re.sub(r"\(.*?\)", "", title))}
    if not title or not text or not stems or len(title.split()) > 8:
        return text
    if stems & {w.stem for w in content_words(text)} or (target and normalise(title) == target):
        return text
    return f"{title}: {text}"


def fault(rationale: str, passages: Sequence[Passage], answer: str, *, is_span: bool) -> str | None:
    """Return what is wrong with a written rationale, or None.

    It must hold the answer where the passages do, take at least 7 in 10 of its content words from
    the passages, and have at most 40 words in one line.
    """
    words = content_words(rationale)
    if not words or "\n" in rationale.strip():
        return "empty" if not words else "lines"
    if len(rationale.split()) > 40:
        return "long"
    if is_span and not contains_answer(rationale, [answer]):
        return "answer"
    known = {w.stem for p in passages for w in content_words(f"{p.title} {p.text}")}
    if sum(w.stem in known for w in words) < 0.7 * len(words):
        return "unsupported"
    return None
