"""From question sets to groups for a cross-encoder: passages that answer a question, and others.

Law: what is measured on is never trained on; no passage that holds an accepted answer counts as one
that does not.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specrag_native.answering.reranking import reading_text
from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.metrics import contains_answer
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
from specrag_native.training.neighbours import Neighbours
from specrag_native.types import Passage

MOST_RIGHT = 2
"""Passages of a group that answer, drawn of those marked."""
MOST_OTHERS = 4
"""Passages of a group that do not."""
_SAME_ARTICLE = 2
"""Of the others, those of the same article as the first that answers, where they are not given."""
_CLOSEST = 12
"""The others are drawn of so many that are closest to the question."""


@dataclass(frozen=True, slots=True)
class Group:
    """A question with texts that answer it and texts that do not, as a cross-encoder reads them."""

    dataset: str
    question: str
    right: tuple[str, ...]
    others: tuple[str, ...]


def make_groups(options: DataOptions, out: Path, *, report: Report | None = None) -> Counts:
    """Write groups to ``out`` and held-back ones beside it (``NAME-check.jsonl``).

    The others are those that a question set marks as irrelevant; where it marks none, passages of
    the same article and of the whole pool that are close to the question and do not hold an answer.

    Raises:
        TrainingDataError: no group came out.
        DatasetError: a question set cannot be read.
    """
    counts = Counts()
    forbidden = questions_of(options.exclude)
    sets = [split(rows_of(s, forbidden, counts), options, s.limit) for s in options.sources]
    given = (p for rows in sets for half in rows for e in half for p in e.passages)
    pooled = (p for path in options.pools for p in read_passages(path))
    pool = list({p.text: p for p in itertools.chain(pooled, given)}.values())
    near = Neighbours(pool)
    groups: tuple[list[Group], list[Group]] = ([], [])
    total, done = sum(len(half) for rows in sets for half in rows), 0
    for halves in sets:
        for rows, found in zip(halves, groups, strict=True):
            for example in rows:
                rng = random.Random(f"{options.draw.seed} {example.id}")
                group = group_of(example, near, rng)
                if group is None:
                    counts.no_gold_passage += 1
                else:
                    found.append(group)
                done += 1
                if report and done % 50 == 0:
                    report(done, total)
    train, held = groups
    if not train:
        raise TrainingDataError(
            "no group came out: rows need passages that are marked as relevant, and others"
        )
    random.Random(options.draw.seed).shuffle(train)
    counts.examples = Counter(g.dataset for g in train)
    counts.held_back = len(held)
    write_groups(out, train)
    write_groups(out.with_name(f"{out.stem}-check{out.suffix}"), held)
    return counts


def group_of(example: Example, near: Neighbours, rng: random.Random) -> Group | None:
    """Return the group of a question; ``None`` without a right passage or without another."""
    right = [p for p in example.passages if p.id in example.relevant]
    irrelevant = [p for p in example.passages if p.id not in example.relevant]
    if not right:
        return None
    texts = {p.text for p in right}
    answers = () if example.question.choices else telling(example.answers)

    def other(passage: Passage) -> bool:
        return passage.text not in texts and not (
            answers and contains_answer(f"{passage.title}\n{passage.text}", answers)
        )

    if irrelevant:
        others = _closest(example.question.text, irrelevant, 2 * MOST_OTHERS)
        others = _sample(rng, others, MOST_OTHERS)
    else:
        article = [p for p in near.same_title(right[0]) if other(p)]
        article = _closest(example.question.text, article, _CLOSEST // 2)
        others = _sample(rng, article, _SAME_ARTICLE)
        taken = {p.text for p in others}
        close = near.similar(example.question.text, _CLOSEST)
        close = [p for p in close if other(p) and p.text not in taken]
        others += _sample(rng, close, MOST_OTHERS - len(others))
    if not others:
        return None
    return Group(
        dataset=example.dataset,
        question=example.question.text,
        right=tuple(reading_text(p) for p in _sample(rng, right, MOST_RIGHT)),
        others=tuple(reading_text(p) for p in others),
    )


def telling(answers: Sequence[str]) -> list[str]:
    """Return the answers but yes and no, which stand in any passage."""
    return [a for a in answers if a.lower() not in ("yes", "no")]


def _closest(question: str, passages: Sequence[Passage], n: int) -> list[Passage]:
    return Neighbours(passages).similar(question, n) if len(passages) > n else list(passages)


def _sample(rng: random.Random, passages: Sequence[Passage], n: int) -> list[Passage]:
    return rng.sample(list(passages), min(n, len(passages)))


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """Write groups as JSON lines; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".writing")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(g), ensure_ascii=False) + "\n" for g in groups)
    partial.replace(path)


def read_groups(path: Path) -> list[Group]:
    """Read groups.

    Raises:
        TrainingDataError: the file cannot be read, holds none, or a line is no group.
    """
    try:
        found = list(_groups(path))
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error}") from None
    if not found:
        raise TrainingDataError(f"{path} holds no group: make some with specrag train pairs")
    return found


def _groups(path: Path) -> Iterator[Group]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            for name in ("right", "others"):
                values[name] = tuple(map(str, values[name]))
            yield Group(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingDataError(f"{path}, line {number}: no group ({error!r})") from None
