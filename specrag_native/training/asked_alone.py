"""Made-up questions about titles, to tell from the question alone whether one passage will do.

Law: the same titles and seed give the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_PEOPLE = (
    *("director", "author", "father", "mother", "spouse", "composer", "producer", "founder"),
    *("performer", "husband", "wife", "singer", "president", "creator", "screenwriter", "owner"),
)
_PLACES = ("country", "city", "state", "county", "birthplace", "headquarters", "place of death")
_FACTS = (
    *("genre", "occupation", "capital", "religion", "country", "birthplace", "nationality"),
    *("population", "area", "date of birth", "date of death", "record label", "language", "color"),
)
_ONE = (
    *("Who was the {person} of {title}?", "Who is the {person} of {title}?"),
    *("What is the {fact} of {title}?", "What is {title}'s {fact}?", "What genre is {title}?"),
    *("In what city was {title} born?", "In what country is {title}?", "Where was {title} born?"),
    *("What is {title} the capital of?", "What sport does {title} play?", "Who wrote {title}?"),
    *("When was {title} born?", "When did {title} die?", "Who directed {title}?"),
)
_COMPARED = (
    *("Who was born first, {title} or {other}?", "Which came out first, {title} or {other}?"),
    *("Which is older, {title} or {other}?", "Who died later, {title} or {other}?"),
    *("Are {title} and {other} both located in the same country?",),
    *("Are both {title} and {other} from the same country?",),
    *("Did {title} and {other} share the same {fact}?",),
)
_SEVERAL = (
    *("Who is the {person} of the {person2} of {title}?",),
    *("What is the {fact} of the {person} of {title}?", "What is {title}'s {person}'s {fact}?"),
    *("Where was the {person} of {title} born?", "When did the {person} of {title} die?"),
    *("What nationality is the {person} of {title}?", "Who is {title}'s {person}'s {person2}?"),
    *("What is the capital of the {place} where {title} is located?",),
    *("In which {place} was the {person} of {title} born?",),
    *("When was the {place} where {title} was born founded?",),
    *("How many people live in the {place} of {title}?",),
    *("Who is the mayor of the {place} in which {title} lies?",),
)
_SHARES = ((_ONE, 0.45), (_COMPARED, 0.15), (_SEVERAL, 0.4))


@dataclass(frozen=True, slots=True)
class AskedAlone:
    """A question, and whether it takes several passages."""

    question: str
    several: bool


def made_up(titles: Sequence[str], n: int, rng: random.Random) -> Iterator[AskedAlone]:
    """Yield ``n`` questions about titles, or as many as there are titles."""
    for title in rng.sample(titles, min(n, len(titles))):
        (forms,) = rng.choices([f for f, _ in _SHARES], [share for _, share in _SHARES])
        person, person2 = rng.sample(_PEOPLE, 2)
        question = rng.choice(forms).format(
            title=title,
            other=rng.choice(titles),
            person=person,
            person2=person2,
            place=rng.choice(_PLACES),
            fact=rng.choice(_FACTS),
        )
        yield AskedAlone(question, forms is not _ONE)
