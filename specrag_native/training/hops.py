"""From question sets to groups for a hop ranker: which passage completes another, and questions.

Such a group has the question with a first passage in place of a question, as a hop ranker reads it;
what completes the two is right, and nothing is where the first will do. In a group of a question
alone the one text is empty: it is right where the question takes several passages.

Law: as for groups of a reranker, what is measured on is never trained on, and no passage that holds
an accepted answer counts as one that does not complete.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from specrag_native.answering.hops import question_with
from specrag_native.answering.reranking import reading_text
from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.metrics import contains_answer
from specrag_native.training.asked_alone import made_up
from specrag_native.training.bridges import Bridges, Titles, title_of
from specrag_native.training.data import (
    Counts,
    DataOptions,
    Report,
    questions_of,
    read_passages,
    rows_of,
    split,
)
from specrag_native.training.examples import TrainingDataError
from specrag_native.training.hop_options import HopOptions
from specrag_native.training.neighbours import Neighbours
from specrag_native.training.pairs import Group, telling, write_groups
from specrag_native.types import Passage

MOST_FIRST = 4
"""Marked passages of a question that are the first of a group each."""
MOST_OTHERS = 8
"""Passages of a group that do not complete."""
LEAST_OTHERS = 3
"""A question with one marked passage makes no group without so many."""
_SAME_ARTICLE = 2
_LINKED = 3
"""Of the others of a bridge, those of the same article, and those that its first passage names."""
_ONE_WILL_DO = 0.6
"""Share of groups of a question with one marked passage in which that is the first, and nothing
completes it; in the others it completes a close one."""
BRIDGE = "bridge"
MADE_UP = "made-up"


def make_hop_groups(
    options: DataOptions,
    out: Path,
    *,
    hops: HopOptions = HopOptions(),
    report: Report | None = None,
) -> Counts:
    """Write groups to ``out`` and held-back ones beside it (``NAME-check.jsonl``).

    Raises:
        TrainingDataError: no group came out.
        DatasetError: a question set cannot be read.
    """
    counts = Counts()
    forbidden = questions_of(options.exclude)
    sets = [split(rows_of(s, forbidden, counts), options, s.limit) for s in options.sources]
    every = [e for halves in sets for half in halves for e in half]
    pooled = (p for path in options.pools for p in read_passages(path))
    given = (p for e in every for p in e.passages)
    pool = list({p.text: p for p in itertools.chain(pooled, given)}.values())
    maker = _Maker(pool, every, hops)
    groups: tuple[list[Group], list[Group]] = ([], [])
    done = 0
    for halves in sets:
        for rows, found in zip(halves, groups, strict=True):
            for example in rows:
                made = list(maker.of(example, random.Random(f"{options.draw.seed} {example.id}")))
                counts.no_gold_passage += not made
                found += made
                done += 1
                if report and done % 50 == 0:
                    report(done, len(every))
    train, held = groups
    if not train:
        raise TrainingDataError(
            "no group came out: rows need passages that are marked as relevant, and others"
        )
    rng = random.Random(options.draw.seed)
    train += maker.made_up(rng)
    rng.shuffle(train)
    counts.examples = Counter(g.dataset for g in train)
    counts.held_back = len(held)
    write_groups(out, train)
    write_groups(out.with_name(f"{out.stem}-check{out.suffix}"), held)
    return counts


class _Maker:
    def __init__(
        self, pool: Sequence[Passage], examples: Sequence[Example], options: HopOptions
    ) -> None:
        self._options = options
        self._near = Neighbours(pool)
        self._bridges = Bridges(pool, (e for e in examples if len(_marked(e)) == 1))
        self._titled: dict[str, list[Passage]] = defaultdict(list)
        for passage in pool:
            if title := title_of(passage):
                self._titled[title].append(passage)
        self._titles = Titles(self._titled)

    def of(self, example: Example, rng: random.Random) -> Iterator[Group]:
        """Yield the groups of a question."""
        marked = _marked(example)
        if not marked:
            return
        if len(marked) > 1:
            yield from self._of_several(example, marked, rng)
        else:
            yield from self._of_one(example, marked[0], rng)
        if example.question.task not in ("claim", "choice"):
            yield _alone(example.dataset, example.question.text, several=len(marked) > 1)

    def made_up(self, rng: random.Random) -> Iterator[Group]:
        """Yield groups of made-up questions about titles, each alone."""
        for asked in made_up(sorted(self._titled), self._options.made_up, rng):
            yield _alone(MADE_UP, asked.question, several=asked.several)

    def _of_several(
        self, example: Example, marked: Sequence[Passage], rng: random.Random
    ) -> Iterator[Group]:
        question = example.question.text
        others = [p for p in example.passages if p.id not in example.relevant]
        for first in marked[:MOST_FIRST]:
            rest = [p for p in marked if p is not first]
            yield _group(example.dataset, question, first, rest, _sample(rng, others, MOST_OTHERS))
        if others:
            (wrong,) = Neighbours(others).similar(question, 1) or others[:1]
            rest = [p for p in others if p is not wrong][:MOST_OTHERS]
            yield _group(example.dataset, question, wrong, marked[:3], rest)

    def _of_one(self, example: Example, marked: Passage, rng: random.Random) -> Iterator[Group]:
        question = example.question.text
        given = {p.text for p in example.passages}
        article = [p for p in self._near.same_title(marked) if self._other(p, example, given)]
        article = _sample(rng, article, _SAME_ARTICLE)
        close = [
            p
            for p in self._near.similar(question, MOST_OTHERS + 1)
            if self._other(p, example, given) and p not in article
        ]
        others = [*article, *close][:MOST_OTHERS]
        if len(others) >= LEAST_OTHERS:
            if rng.random() < _ONE_WILL_DO:
                yield _group(example.dataset, question, marked, (), others)
            else:
                first = rng.choice((others[0], others[-1]))
                rest = [p for p in others if p is not first]
                yield _group(example.dataset, question, first, (marked,), rest)
        for bridge in self._bridges.of(example, self._options.bridges, rng):
            besides = {*given, bridge.first.text}
            named = sorted(self._titles.named_in(bridge.first).keys() - {title_of(marked)})
            linked = [
                rng.choice(self._titled[t]) for t in rng.sample(named, min(_LINKED, len(named)))
            ]
            close = self._near.similar(bridge.question, MOST_OTHERS + 2)
            rest = [
                p
                for p in dict.fromkeys((*article, *linked, *close))
                if self._other(p, example, besides)
            ]
            if len(rest) >= LEAST_OTHERS:
                yield _group(BRIDGE, bridge.question, bridge.first, (marked,), rest[:MOST_OTHERS])

    def _other(self, passage: Passage, example: Example, besides: set[str]) -> bool:
        """Whether a passage is none of ``besides`` and holds no accepted answer."""
        answers = () if example.question.choices else telling(example.answers)
        return passage.text not in besides and not (
            answers and contains_answer(f"{passage.title}\n{passage.text}", answers)
        )


def _marked(example: Example) -> list[Passage]:
    return [p for p in example.passages if p.id in example.relevant]


def _group(
    dataset: str,
    question: str,
    first: Passage,
    right: Sequence[Passage],
    others: Sequence[Passage],
) -> Group:
    return Group(
        dataset=dataset,
        question=question_with(question, first),
        right=tuple(map(reading_text, right)),
        others=tuple(map(reading_text, others)),
    )


def _alone(dataset: str, question: str, *, several: bool) -> Group:
    return Group(dataset, question, ("",) if several else (), () if several else ("",))


def _sample(rng: random.Random, passages: Sequence[Passage], n: int) -> list[Passage]:
    return rng.sample(list(passages), min(n, len(passages)))
