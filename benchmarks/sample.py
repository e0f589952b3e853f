"""The questions latency is measured on: a set that the caller names, or a made-up one.

Law: the same sample always, in the same order. The made-up one has the shape of open question
answering over an encyclopedia: ten passages of about a hundred words.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from specrag_native.evaluation.datasets import Example, read_dataset
from specrag_native.types import Passage, Question

N_PASSAGES = 10
_TOWNS = ("Arvelby", "Brundal", "Corvinstad", "Deltraholm", "Evanor", "Fintalvik", "Gorsund")
_TRADES = ("a ropewalk", "a dye works", "a paper mill", "two tanneries", "a glass house", "a quay")
_PEOPLE = ("Ilse Marn", "Tobias Kreel", "Anneke Voss", "Piet Laur", "Sanne Dorn", "Emil Rask")
_FACTS = (
    "{town} was granted its charter in {year} by {person}, who also paid for the first bridge.",
    "The harbour of {town} froze in the winter of {year} and remained closed for eleven weeks.",
    "By {year} the town counted {n} households and {trade}, which employed most of its men.",
    "{person} designed the town hall, begun in {year} and finished nine years later.",
    "A fire in {year} destroyed {n} houses; only the church and {trade} were left standing.",
    "The railway reached {town} in {year}, after a dispute over the route led by {person}.",
    "Its market, held on Tuesdays since {year}, drew traders from {n} villages of the district.",
)


def sample(n: int) -> list[Example]:
    """Return ``n`` questions: of the set in SPECRAG_BENCH_SET, else made up."""
    path = os.environ.get("SPECRAG_BENCH_SET")
    if path:
        return list(read_dataset(Path(path), limit=n).examples)
    return [_made_up(i) for i in range(n)]


def same_passages(example: Example) -> Question:
    """Return another question over the same passages, for a warm start."""
    return Question(f"Which of these passages mentions a bridge? ({example.id})")


def _made_up(i: int) -> Example:
    rng = random.Random(i)
    passages, facts = [], []
    for j in range(N_PASSAGES):
        town = f"{_TOWNS[(i + j) % len(_TOWNS)]} {['upper', 'lower', 'new', 'old', 'great'][j % 5]}"
        person = rng.choice(_PEOPLE)
        sentences = [
            f.format(
                town=town,
                year=rng.randint(1300, 1900),
                person=person,
                n=rng.randint(20, 900),
                trade=rng.choice(_TRADES),
            )
            for f in rng.sample(_FACTS, 6)
        ]
        facts.append((town, person))
        text = " ".join(sentences)
        passages.append(Passage(f"s{i}-{j}", f"s{i}-{j}", town.title(), text, end=len(text)))
    town, person = facts[i % N_PASSAGES]
    return Example(
        id=f"sample-{i}",
        dataset="sample",
        question=Question(f"Who is named in the history of {town}?"),
        answers=(person,),
        passages=tuple(passages),
    )
