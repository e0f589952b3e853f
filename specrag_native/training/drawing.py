"""From questions with gold passages to drafting examples: subsets, distractors, "unknown".

Law: the same rows, settings and seed give the same examples in the same order, and no random draw
depends on how far an earlier run came.

Examples come in groups that read the same subset, one group after another, so that the passages of
a group are computed once for all its questions in training.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.metrics import contains_answer, normalise
from specrag_native.training.examples import UNKNOWN_ANSWER, UNKNOWN_RATIONALE, DraftExample
from specrag_native.training.neighbours import Neighbours
from specrag_native.training.rationales import answer_in, extract, holds_answer
from specrag_native.training.swaps import Swaps
from specrag_native.types import Passage

_MAX_PARTS = 3


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """How subsets are drawn.

    ``unknown``: share of examples whose subset holds no answer. ``sizes``: weight of each number
    of passages per subset, as at answering time. ``per_subset``: most questions of one subset.
    ``similar``: share of distractors that are close to the question, as retrieval finds them; the
    others come from the same article where there is one. ``hard_unknown``: share of questions that
    are asked once more of passages which are close to them and do not hold their answer, as when
    retrieval fails; on top of ``unknown``. ``weak``: share of questions that are asked once more of
    a passage which is close to them and holds their answer without being marked as its evidence, as
    retrieval finds many. ``swapped``: share of true claims that are asked once more with a name or
    number exchanged, and are false then.
    """

    unknown: float = 0.25
    sizes: Mapping[int, float] = field(default_factory=lambda: {1: 0.15, 2: 0.7, 3: 0.15})
    per_subset: int = 10
    similar: float = 0.4
    hard_unknown: float = 0.0
    weak: float = 0.0
    swapped: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Skipped:
    """Rows that gave no example, by reason."""

    no_answer: int = 0
    no_gold_passage: int = 0
    no_evidence: int = 0


class Drawing:
    """Draws drafting examples from the rows of one question set.

    Args:
        rows: questions with answers and passages. Where passages are marked relevant those are the
            gold ones, otherwise those that hold an answer.
        pool: further passages that distractors may come from.
        options: see :class:`DrawOptions`.
    """

    def __init__(
        self, rows: Sequence[Example], pool: Sequence[Passage], options: DrawOptions
    ) -> None:
        self._options = options
        self.skipped = Skipped()
        self._gold: dict[str, tuple[Passage, ...]] = {}
        self._rows: list[Example] = []
        for row in rows:
            gold = self._gold_of(row)
            if gold:
                self._gold[row.id] = gold
                self._rows.append(row)
        self._groups: dict[str, list[Example]] = defaultdict(list)
        for row in self._rows:
            self._groups[_key(self._gold[row.id])].append(row)
        known = {p.id: p for row in self._rows for p in row.passages}
        known.update({p.id: p for p in pool})
        self._neighbours = Neighbours(list(known.values()))
        self._swaps = Swaps(row.question.text for row in rows if row.question.task == "claim")

    def _gold_of(self, row: Example) -> tuple[Passage, ...]:
        if not row.answers:
            self.skipped.no_answer += 1
            return ()
        marked = [p for p in row.passages if p.id in row.relevant]
        if row.question.task == "qa" and not _is_yes_no(row):
            marked = marked or [p for p in row.passages if holds_answer([p], row.answers)][:1]
            if marked and not holds_answer(marked, row.answers):
                self.skipped.no_evidence += 1
                return ()
        if not marked:
            self.skipped.no_gold_passage += 1
        return tuple(marked[:_MAX_PARTS])

    def examples(self) -> Iterator[DraftExample]:
        """Yield the examples, subset by subset."""
        keys = list(self._groups)
        random.Random(self._options.seed).shuffle(keys)
        used: set[str] = set()
        for key in keys:
            rows = [row for row in self._groups[key] if row.id not in used]
            if rows:
                rng = random.Random(f"{self._options.seed} {key}")
                group = self._subset(rows, used, rng)
                used.update(e.id for e in group)
                yield from group
                for row in rows:
                    for name, share, more in (
                        ("hard", self._options.hard_unknown, self._hard_unknown),
                        ("weak", self._options.weak, self._weak),
                        ("swapped", self._options.swapped, self._swapped),
                    ):
                        # A draw of its own, so that this share changes no other draw.
                        rng = random.Random(f"{self._options.seed} {name} {row.id}")
                        if rng.random() < share:
                            yield from more(row, rng)

    def _hard_unknown(self, row: Example, rng: random.Random) -> Iterator[DraftExample]:
        """Yield the question with passages that look like evidence for it and are none.

        Only where an answer would stand in the passage as it is: what supports a claim is not to
        be told from its words.
        """
        if not _asks_for_span(row):
            return
        close = [p for p in self._close(row, 10) if not holds_answer([p], row.answers)]
        passages = rng.sample(close, min(self._size(rng), len(close)))
        if passages:
            yield _unknown(row, passages)

    def _weak(self, row: Example, rng: random.Random) -> Iterator[DraftExample]:
        """Yield the question with a passage that may be evidence for it: its answer stands there.

        Short answers and those that the question names stand anywhere.
        """
        answers = [
            a
            for a in row.answers
            if len(normalise(a)) > 3 and not contains_answer(row.question.text, [a])
        ]
        if not answers or not _asks_for_span(row):
            return
        close = self._close(row, 20)
        holding = [p for p in close if answer_in([p], answers)]
        if not holding:
            return
        evidence = rng.choice(holding)
        others = [p for p in close if not holds_answer([p], row.answers)]
        passages = [evidence, *rng.sample(others, min(self._size(rng) - 1, len(others)))]
        rng.shuffle(passages)
        example = self._known(row, passages, (evidence,))
        if example is not None:
            yield dataclasses.replace(example, id=f"{row.id}/weak")

    def _swapped(self, row: Example, rng: random.Random) -> Iterator[DraftExample]:
        """Yield a true claim made false, with its evidence."""
        if row.question.task != "claim" or row.answers[-1] != "true":
            return
        gold = self._gold[row.id]
        text = self._swaps.swapped(row.question.text, gold, rng)
        if text is None:
            return
        false = dataclasses.replace(
            row,
            question=dataclasses.replace(row.question, text=text),
            answers=("B", "false"),
        )
        example = self._known(false, gold, gold)
        if example is not None:
            yield dataclasses.replace(example, id=f"{row.id}/swapped")

    def _close(self, row: Example, n: int) -> list[Passage]:
        """Return passages that came with the question or are close to it, not its gold ones."""
        gold = {p.id for p in self._gold[row.id]}
        near = self._neighbours.similar(row.question.text, n)
        return list({p.id: p for p in (*row.passages, *near) if p.id not in gold}.values())

    def _size(self, rng: random.Random) -> int:
        sizes = self._options.sizes
        return rng.choices(list(sizes), weights=list(sizes.values()))[0]

    def _subset(
        self, rows: list[Example], used: set[str], rng: random.Random
    ) -> list[DraftExample]:
        """Return what is asked of one subset: ``rows``, rows about its distractors, strangers."""
        gold = self._gold[rows[0].id]
        k = max(len(gold), self._size(rng))
        passages, others = self._fill(rows, gold, k, rng)
        rng.shuffle(passages)
        ids = {p.id for p in passages}
        asked = [*rows]
        for row in others:  # questions about a distractor that is the gold passage of another row
            if row.id not in used and {p.id for p in self._gold[row.id]} <= ids:
                asked.append(row)
        rng.shuffle(asked)
        limit = self._options.per_subset
        n_unknown = self._n_unknown(min(len(asked), limit), rng)
        asked = asked[: max(1, limit - n_unknown)]
        group = [
            e for row in asked if (e := self._known(row, passages, self._gold[row.id])) is not None
        ]
        for row in self._strangers(asked, passages, n_unknown, rng):
            group.append(_unknown(row, passages))
        rng.shuffle(group)
        return group

    def _n_unknown(self, n: int, rng: random.Random) -> int:
        share = self._options.unknown
        exact = n * share / max(1e-9, 1 - share)
        return int(exact) + (rng.random() < exact - int(exact))

    def _fill(
        self, rows: Sequence[Example], gold: Sequence[Passage], k: int, rng: random.Random
    ) -> tuple[list[Passage], list[Example]]:
        """Return the gold passages with distractors up to ``k``, and rows about the distractors."""
        passages = list(gold)
        asker = rng.choice(list(rows))
        own = [p for p in asker.passages if p.id not in {g.id for g in gold}]
        rng.shuffle(own)
        answers = [a for row in rows for a in row.answers] if asker.question.task == "qa" else []
        for _ in range(8 * k):  # a small set may not have k different passages
            if len(passages) >= k:
                break
            taken = {p.id for p in passages}
            if own:
                candidates: Sequence[Passage] = [own.pop()]
            elif rng.random() < self._options.similar:
                candidates = self._neighbours.similar(asker.question.text, 12)
            else:
                candidates = self._neighbours.same_title(gold[0])
            fitting = [
                p
                for p in candidates
                if p.id not in taken and (_is_yes_no(asker) or not holds_answer([p], answers))
            ]
            if not fitting:  # another question's passage, so that both questions can be asked
                other = rng.choice(self._gold[rng.choice(self._rows).id])
                fitting = [] if other.id in taken else [other]
            if fitting:
                passages.append(rng.choice(fitting))
        others = [
            row
            for p in passages[len(gold) :]
            for row in self._groups.get(_key((p,)), ())
            if row.id not in {r.id for r in rows}
        ]
        return passages, others

    def _strangers(
        self, asked: Sequence[Example], passages: Sequence[Passage], n: int, rng: random.Random
    ) -> list[Example]:
        """Return ``n`` rows near these passages that they do not answer."""
        ids = {p.id for p in passages}
        near: list[Example] = []
        for passage in passages:
            close = [*self._neighbours.same_title(passage)]
            rng.shuffle(close)
            found = self._neighbours.similar(f"{passage.title} {passage.text}", 16)
            for other in (*close[:6], *found):
                near += self._groups.get(_key((other,)), ())
        rng.shuffle(near)
        near += [rng.choice(self._rows) for _ in range(4 * n)]  # where nothing is near
        chosen: dict[str, Example] = {}
        for row in near:
            if len(chosen) == n:
                break
            if {p.id for p in self._gold[row.id]} & ids or row.id in {a.id for a in asked}:
                continue
            if not (_asks_for_span(row) and holds_answer(passages, row.answers)):
                chosen[row.id] = row
        return list(chosen.values())

    def _known(
        self, row: Example, passages: Sequence[Passage], evidence: Sequence[Passage]
    ) -> DraftExample | None:
        gold = [p for p in passages if p.id in {e.id for e in evidence}]
        is_span = _asks_for_span(row)
        if row.question.task == "qa":
            answer = answer_in(gold, row.answers) or row.answers[0]
        elif row.question.task == "claim":
            answer = row.answers[-1]
        else:
            answer = row.answers[0]
        shown = row.answers[-1] if row.question.task == "choice" else answer
        rationale = extract(
            row.question, gold, shown, is_span=is_span or row.question.task == "choice"
        )
        if not rationale:
            self.skipped.no_evidence += 1
            return None
        return DraftExample(
            id=row.id,
            dataset=row.dataset,
            question=row.question,
            passages=tuple(passages),
            rationale=rationale,
            answer=answer,
            answers=row.answers,
        )


def _unknown(row: Example, passages: Sequence[Passage]) -> DraftExample:
    return DraftExample(
        id=f"{row.id}/unknown",
        dataset=row.dataset,
        question=row.question,
        passages=tuple(passages),
        rationale=UNKNOWN_RATIONALE,
        answer=UNKNOWN_ANSWER,
        answers=row.answers,
        unknown=True,
    )


def _key(passages: Sequence[Passage]) -> str:
    return "\x1f".join(sorted(p.id for p in passages))


def _asks_for_span(row: Example) -> bool:
    """Whether the answer would stand in a passage as it is."""
    return row.question.task == "qa" and not _is_yes_no(row)


def _is_yes_no(row: Example) -> bool:
    return all(a.strip().lower() in ("yes", "no") for a in row.answers)
