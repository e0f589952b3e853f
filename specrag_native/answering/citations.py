"""Which sentences of the passages stand behind which sentence of a rationale.

Law: a citation is a whole sentence of a passage, verbatim, at exact offsets of its document; a
sentence of the rationale that no passage supports is marked as such, never hidden.

How sentences are aligned: by the words they share, each weighted by how rare it is among the
sentences of the passages, so that a name or a term counts and a filler does not. Words the
passages never use weigh most of all, and lower the coverage. Numbers are held to more: one that
stands neither in the cited sentence nor beside it in its passage makes the sentence unsupported,
however alike the rest is. Words decide, not vectors: a small embedding model finds two sentences
alike that differ only in the year or the name, and that difference is what a reader checks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from specrag_native.answering.grounding import is_judgement
from specrag_native.sentences import sentence_spans
from specrag_native.types import Citation, Passage
from specrag_native.words import Word, content_words

COVERAGE = 0.5
"""Least weighted share of a sentence's words that its citation must hold."""
_ENOUGH = 0.85
"""From this coverage on, one cited sentence is enough."""
_GAIN = 0.15
"""Least coverage that a second cited sentence must add."""
_PAIR_WEIGHT = 0.25
"""Weight of two words in the same order against the words themselves."""


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of the rationale with what stands behind it.

    ``text == rationale[start:end]``; ``citations`` are indexes into
    :attr:`CitationResult.citations`; ``coverage`` is the weighted share, 0..1, of its words that
    the cited sentences hold.
    """

    text: str
    start: int
    end: int
    citations: tuple[int, ...]
    coverage: float
    supported: bool


@dataclass(frozen=True, slots=True)
class CitationResult:
    """The citations of an answer, in the order in which the rationale needs them.

    ``support`` is the share, 0..1, of the rationale's words (stop words aside) that stand in
    supported sentences.
    """

    citations: tuple[Citation, ...]
    sentences: tuple[CitedSentence, ...]
    support: float

    @property
    def unsupported(self) -> tuple[CitedSentence, ...]:
        """The sentences of the rationale that no passage supports."""
        return tuple(s for s in self.sentences if not s.supported)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A sentence of a passage, with the stems a claim may find there."""

    passage: Passage
    start: int
    end: int
    stems: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    numbers: frozenset[str]
    """Numbers of this sentence, of its neighbours and of the title."""


def cite(
    rationale: str, answer: str, passages: Sequence[Passage], question: str = ""
) -> CitationResult:
    """Align each sentence of ``rationale`` with the sentences of ``passages`` that support it.

    Without a rationale the answer itself is aligned, with the sentence most like ``question`` where
    several hold it. An answer that only judges (yes, false) has nothing to be found: it cites what
    the question is about. Offsets of the citations are characters of the document's text, through
    ``Passage.start``.
    """
    alone = not rationale.strip()
    text = answer if alone else rationale
    judged = alone and is_judgement(answer)
    candidates = [c for passage in passages for c in _candidates(passage)]
    weights = _weights(candidates)
    asked = frozenset(word.stem for word in content_words(question if alone else answer))
    found: dict[tuple[str, int, int], int] = {}
    citations: list[Citation] = []
    sentences: list[CitedSentence] = []
    supported_words = all_words = 0
    for start, end in sentence_spans(text):
        words = content_words(question if judged else text[start:end])
        if not words:
            continue
        chosen, coverage, supported = _align(words, candidates, weights, asked)
        indexes = []
        for candidate in chosen:
            key = (candidate.passage.id, candidate.start, candidate.end)
            if key not in found:
                found[key] = len(citations)
                citations.append(_citation(candidate))
            indexes.append(found[key])
        all_words += len(words)
        supported_words += len(words) if supported else 0
        sentence = text[start:end]
        sentences.append(CitedSentence(sentence, start, end, tuple(indexes), coverage, supported))
    support = supported_words / all_words if all_words else 0.0
    return CitationResult(tuple(citations), tuple(sentences), support)


def _candidates(passage: Passage) -> Iterable[_Candidate]:
    spans = sentence_spans(passage.text)
    words = [content_words(passage.text[start:end]) for start, end in spans]
    numbers = [{w.stem for w in sentence if w.is_number} for sentence in words]
    title = content_words(passage.title)
    title_numbers = {word.stem for word in title if word.is_number}
    for i, (start, end) in enumerate(spans):
        near = set(title_numbers).union(*numbers[max(0, i - 1) : i + 2])
        stems = {word.stem for word in words[i]} | {word.stem for word in title}
        yield _Candidate(
            passage, start, end, frozenset(stems), frozenset(_pairs(words[i])), frozenset(near)
        )


def _weights(candidates: Sequence[_Candidate]) -> Mapping[str, float]:
    """Return the weight of each stem: ``log(1 + N / n)``, n of N sentences holding it."""
    counts = Counter(stem for candidate in candidates for stem in candidate.stems)
    total = len(candidates)
    return {stem: math.log1p(total / n) for stem, n in counts.items()}


def _align(
    words: Sequence[Word],
    candidates: Sequence[_Candidate],
    weights: Mapping[str, float],
    asked: frozenset[str],
) -> tuple[list[_Candidate], float, bool]:
    """Return the cited sentences, the coverage and whether it is enough; none when it is not."""
    unseen = math.log1p(max(1, len(candidates)))
    claim = {word.stem: weights.get(word.stem, unseen) for word in words}
    pairs = frozenset(_pairs(words))
    best = max(candidates, key=lambda c: _likeness(claim, pairs, c, asked), default=None)
    if best is None:
        return [], 0.0, False
    chosen = [best]
    covered = _coverage(claim, best.stems)
    if covered < _ENOUGH:
        other = max(candidates, key=lambda c: _coverage(claim, best.stems | c.stems))
        both = _coverage(claim, best.stems | other.stems)
        if both - covered >= _GAIN:
            chosen, covered = [best, other], both
    numbers = frozenset(word.stem for word in words if word.is_number)
    known = frozenset().union(*(c.numbers for c in chosen))
    if covered < COVERAGE or not numbers <= known:
        return [], covered, False
    return chosen, covered, True


def _likeness(
    claim: Mapping[str, float],
    pairs: frozenset[tuple[str, str]],
    candidate: _Candidate,
    asked: frozenset[str],
) -> tuple[float, int, int]:
    """Return the sort key of a candidate: coverage with word order, words asked for, brevity."""
    order = len(pairs & candidate.pairs) / len(pairs) if pairs else 0.0
    coverage = _coverage(claim, candidate.stems) + _PAIR_WEIGHT * order
    return coverage, len(asked & candidate.stems), -(candidate.end - candidate.start)


def _coverage(claim: Mapping[str, float], stems: frozenset[str]) -> float:
    total = sum(claim.values())
    return sum(weight for stem, weight in claim.items() if stem in stems) / total if total else 0.0


def _pairs(words: Sequence[Word]) -> Iterable[tuple[str, str]]:
    return ((words[i].stem, words[i + 1].stem) for i in range(len(words) - 1))


def _citation(candidate: _Candidate) -> Citation:
    passage = candidate.passage
    return Citation(
        document=passage.document,
        title=passage.title,
        start=passage.start + candidate.start,
        end=passage.start + candidate.end,
        text=passage.text[candidate.start : candidate.end],
        page=passage.page,
    )
