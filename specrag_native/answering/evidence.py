"""Where the evidence for an answer is: what the verifier reads, by what the drafts say of it.

Law: drafts say where to look, and never what to believe.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from specrag_native.answering.citations import cite
from specrag_native.answering.links import Links
from specrag_native.types import Hit, Passage, RepairStep, Verdict

SHORT_CHARACTERS = 1200
"""Passages that have no more characters together are short: some 200 words of English. For the
verifier to read them takes about as long as to draft them and to let it read the best."""

Extract = Callable[[Sequence[Passage]], Sequence[tuple[Passage, Passage]]]
"""Returns the best sentences of passages as short passages, each with the passage it is from."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a step gives the verifier to read, and the ``passages`` that it comes from.

    ``whole``: those read from beginning to end so far, with which a later step begins.
    """

    read: tuple[Passage, ...]
    passages: tuple[Passage, ...]
    whole: tuple[Passage, ...]

    @property
    def begins_whole(self) -> bool:
        """Whether a passage is read first that other questions may need too, not a piece of it."""
        return self.read[:1] == self.whole[:1]


def evidence_of(
    step: RepairStep,
    verdicts: Sequence[Verdict],
    hits: Sequence[Hit],
    seen: Sequence[Passage],
    unknown_above: float | None = None,
    extract: Extract | None = None,
    links: Links | None = None,
    hops: Sequence[Passage] = (),
) -> Evidence | None:
    """Return what a step reads, or ``None`` when that is nothing new.

    ``seen`` is what was read whole before; it comes first. With ``unknown_above``, the drafter is
    trusted to tell evidence from other passages: then the best hit is not read besides, and
    ``more`` reads nothing further where the drafter says with that probability that there is no
    evidence. Hits that are in no draft come last. ``sentences`` and ``extracts`` need
    ``extract``, and ``best``, ``named``, ``pair`` and ``linked`` need ``links``. ``hops``: what
    ``pair`` reads where it is known which passages complete each other.
    """
    if step == "rationales":
        return _with_short((), rationales(verdicts), tuple(seen))
    if step == "short":
        return _short(hits, seen)
    if step == "extracts":
        assert extract is not None, "extracts need something that extracts them"
        return _with_short((), extract([h.passage for h in hits]), tuple(seen))
    if step == "best":
        assert links is not None, "it is not known what is linked"
        if seen or hops or _compared(verdicts, hits, links):
            return None
        alone = tuple(_passages(verdicts, verdicts, hits)[:1])
        return Evidence(alone, alone, alone)
    if step in ("sentences", "named", "pair", "linked"):
        best = None if seen else evidence_of("subset", verdicts, hits, (), unknown_above)
        whole = best.whole if best else tuple(seen)
        if step == "sentences":
            assert extract is not None, "sentences need something that extracts them"
            read = {p.id for p in whole}
            found = extract([h.passage for h in hits if h.passage.id not in read])
            return _with_short(whole, found, whole) or best
        assert links is not None, "it is not known what is linked"
        if step in ("named", "pair"):
            whole, other = tuple(seen), list(hops) or _compared(verdicts, hits, links)
            if step == "pair" and not seen and not hops:
                first, *others = _passages(verdicts, verdicts, hits)
                linked = _partner([first], verdicts, hits, links, None)  # ruled out or not
                other = other or [first, *(linked or others[:1])]
        else:
            other = _partner(whole, verdicts, hits, links, unknown_above)
        passages = (*whole, *(p for p in other if p not in whole))
        return Evidence(passages, passages, passages) if len(passages) > len(whole) else best
    read = {p.id for p in seen}
    besides = () if step == "subset" else read
    if unknown_above is None:
        next_ones = _with_best_hit(best_evidence(verdicts, besides=besides), hits, besides)
    else:
        candidates = verdicts
        if step == "more" and seen:
            candidates = _not_ruled_out(verdicts, unknown_above)
        next_ones = list(best_evidence(candidates, besides=besides))
        next_ones = next_ones or undrafted(verdicts, hits, read)[:1]
    new = [p for p in next_ones if p.id not in read]
    if step == "all":
        read.update(p.id for p in new)
        new += [h.passage for h in hits if h.passage.id not in read]
    passages = (*seen, *new)
    return Evidence(passages, passages, passages) if new else None


def _short(hits: Sequence[Hit], seen: Sequence[Passage]) -> Evidence | None:
    """Return all passages where they are short, in their order after those that were read."""
    read = {p.id for p in seen}
    new = [h.passage for h in hits if h.passage.id not in read]
    passages = (*seen, *new)
    if not new or sum(len(p.text) for p in passages) > SHORT_CHARACTERS:
        return None
    return Evidence(passages, passages, passages)


def _with_short(
    first: tuple[Passage, ...],
    short: Iterable[tuple[Passage, Passage]],
    whole: tuple[Passage, ...],
) -> Evidence | None:
    """Return passages, then short ones with those they are from; ``None`` without short ones."""
    pairs = tuple(short)
    if not pairs:
        return None
    return Evidence((*first, *(s for s, _ in pairs)), (*first, *(p for _, p in pairs)), whole)


def _compared(verdicts: Sequence[Verdict], hits: Sequence[Hit], links: Links) -> list[Passage]:
    """Return the two most promising passages of different titles that the question names.

    Nothing where it names fewer: only one that names two asks about both. The drafter may rule both
    out, as it reads each alone.
    """
    first: dict[str, Passage] = {}
    for passage in _passages(verdicts, verdicts, hits):
        if passage.id in links.asked:
            first.setdefault(links.asked[passage.id], passage)
    return list(first.values())[:2] if len(first) > 1 else []


def _passages(
    candidates: Sequence[Verdict], verdicts: Sequence[Verdict], hits: Sequence[Hit]
) -> list[Passage]:
    """Return the passages of some drafts, the most promising first, and those in no draft."""
    drafted = [p for v in by_promise(candidates) for p in v.draft.subset.passages]
    return [*drafted, *undrafted(verdicts, hits)]


def _partner(
    first: Sequence[Passage],
    verdicts: Sequence[Verdict],
    hits: Sequence[Hit],
    links: Links,
    unknown_above: float | None,
) -> list[Passage]:
    """Return the passage linked to some others that is most promising, if there is any."""
    read = {p.id for p in first}
    friends = frozenset().union(*(links.linked[i] for i in read)) - read
    candidates = _not_ruled_out(verdicts, unknown_above)
    return [p for p in _passages(candidates, verdicts, hits) if p.id in friends][:1]


def _not_ruled_out(verdicts: Sequence[Verdict], unknown_above: float | None) -> list[Verdict]:
    """Return verdicts but those of which the drafter says that surely no evidence is there."""
    if unknown_above is None:
        return list(verdicts)
    most = math.log(unknown_above)
    nones = [(v, v.draft.unknown_logprob) for v in verdicts]
    return [v for v, none in nones if none is None or none < most]


def undrafted(
    verdicts: Sequence[Verdict], hits: Sequence[Hit], read: Collection[str] = ()
) -> list[Passage]:
    """Return the hits that the drafter never saw, as in a run with fewer drafts than passages."""
    drafted = {i for v in verdicts for i in v.draft.subset.ids}
    return [h.passage for h in hits if h.passage.id not in drafted and h.passage.id not in read]


def _with_best_hit(
    evidence: Sequence[Passage], hits: Sequence[Hit], read: Collection[str]
) -> list[Passage]:
    """Return evidence and the best hit that was not read yet, in the order of the hits."""
    left = [h.passage for h in hits if h.passage.id not in read]
    few = {p.id for p in (*evidence, *left[:1])}
    return [p for p in left if p.id in few]


def best_evidence(
    verdicts: Sequence[Verdict], *, besides: Collection[str] = ()
) -> tuple[Passage, ...]:
    """Return the passages of the most promising draft, besides some; see :func:`by_promise`.

    A draft of which all are among those is passed over.
    """
    for verdict in by_promise(verdicts):
        if found := tuple(p for p in verdict.draft.subset.passages if p.id not in besides):
            return found
    return ()


def by_promise(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return verdicts by how likely their passages hold the answer, the likeliest first.

    Verified drafts come first, by total; then known ones, then the rest, those first where the
    drafter was least inclined to say that there is no evidence: that tells passages with an answer
    from others better than the probability of what it wrote, most of which is copied.
    """
    return sorted(verdicts, key=_promise, reverse=True)


def _promise(verdict: Verdict) -> tuple[bool, bool, float]:
    draft, scores = verdict.draft, verdict.scores
    if verdict.verified:
        return True, True, scores.total
    none = draft.unknown_logprob
    return False, not draft.unknown, scores.draft if none is None else -none


def rationales(verdicts: Sequence[Verdict]) -> Iterator[tuple[Passage, Passage]]:
    """Yield the rationales of drafts that have an answer, as short passages, with their passage.

    The most promising comes first. What no passage of a draft supports was made up by the drafter,
    and is no evidence: it is not among them.
    """
    seen = set()
    for verdict in by_promise(verdicts):
        draft = verdict.draft
        if draft.unknown or draft.rationale in seen:
            continue
        seen.add(draft.rationale)
        cited = cite(draft.rationale, draft.answer, draft.subset.passages).citations
        for passage in draft.subset.passages:
            if cited and _holds(passage, cited[0].document, cited[0].start, cited[0].end):
                yield dataclasses.replace(passage, text=draft.rationale), passage
                break


def _holds(passage: Passage, document: str, start: int, end: int) -> bool:
    return passage.document == document and passage.start <= start and end <= passage.end
