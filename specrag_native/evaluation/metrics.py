"""How right one response is: the paper's inclusion and accuracy, exact match, token F1, length.

Law: a metric sees only the response, the accepted answers and the options; every method is read by
the same rules.

A free answer is right when an accepted answer stands in it as whole words (paper section 4.1; the
paper takes any substring, whole words keep "no" out of "north"). A choice is right when it names
the right option, by letter or by text; a claim when it says the right one of its labels. Exact
match and F1 of choices and claims equal that accuracy.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specrag_native import prompts
from specrag_native.types import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LABELS: Mapping[str, str] = {
    "true": "true",
    "yes": "true",
    "supported": "true",
    "supports": "true",
    "correct": "true",
    "false": "false",
    "no": "false",
    "refuted": "false",
    "refutes": "false",
    "incorrect": "false",
}
_NOT_ENOUGH = re.compile(r"\b(not enough|unknown|unclear|maybe|insufficient|not (stated|given))\b")


@dataclass(frozen=True, slots=True)
class Grade:
    """How right a response is. All in 0..1 except ``words``, the length of the response.

    ``right``: inclusion for free answers, accuracy for claims and choices.
    """

    right: float
    exact: float
    f1: float
    words: float


WRONG = Grade(0.0, 0.0, 0.0, 0.0)


@functools.lru_cache(maxsize=1 << 14)
def normalise(text: str) -> str:
    """Return text in lower case without punctuation, articles and repeated white space.

    Punctuation is that of Unicode, and of ASCII what SQuAD's measure leaves out, such as ` and $.
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(
        c
        for c in folded
        if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    return " ".join(_ARTICLES.sub(" ", kept).split())


def contains_answer(response: str, answers: Sequence[str]) -> bool:
    """Return whether an accepted answer stands in the response as whole words."""
    padded = f" {normalise(response)} "
    return any(f" {gold} " in padded for gold in map(normalise, answers) if gold)


def exact_match(response: str, answers: Sequence[str]) -> bool:
    """Return whether the response is an accepted answer, both normalised."""
    said = normalise(response)
    return any(said == gold for gold in map(normalise, answers) if gold)


def token_f1(response: str, answers: Sequence[str]) -> float:
    """Return the best harmonic mean of word precision and recall over the accepted answers."""
    said = Counter(normalise(response).split())
    best = 0.0
    for gold in (Counter(normalise(a).split()) for a in answers):
        common = sum((said & gold).values())
        if common:
            best = max(best, 2 * common / (sum(said.values()) + sum(gold.values())))
    return best


def read_letter(response: str, choices: Mapping[str, str]) -> str | None:
    """Return the option a response names, by its letter or by its text, or ``None``.

    A letter counts when it opens the response and stands alone (``B``, ``(b)``, ``B: the Sun``);
    otherwise an option counts when its text, or the longest of several, stands in the response.
    """
    opening = re.match(r"^\W*(?:the (?:right )?answer is\W*)?\(?(\w+)\b", response, re.IGNORECASE)
    if opening:
        by_letter = {letter.upper(): letter for letter in choices}
        word = opening.group(1)
        alone = response[opening.end() :].lstrip(") ")[:1] in ("", ":", ".", ",", "-", "\n")
        if word.upper() in by_letter and (alone or word.upper() != "A"):
            return by_letter[word.upper()]
    named = [
        (len(text), letter) for letter, text in choices.items() if contains_answer(response, [text])
    ]
    return max(named)[1] if named else None


def read_label(response: str, choices: Mapping[str, str] | None) -> str | None:
    """Return the label a response gives a claim (``true``, ``false``, ...), or ``None``.

    A letter of the options stands for its text. A third option (not enough information) is read
    from any wording of "not enough" and from "unknown".
    """
    words = normalise(response).split()
    options = {letter.lower(): normalise(text) for letter, text in (choices or {}).items()}
    if len(words) == 1 and words[0] in options:
        return options[words[0]]
    for label in options.values():
        if label not in ("true", "false") and label and f" {label} " in f" {' '.join(words)} ":
            return label
    third = next((t for t in options.values() if t not in ("true", "false")), None)
    if third is not None and (
        response == prompts.ABSTAIN_TEXT or _NOT_ENOUGH.search(" ".join(words))
    ):
        return third
    return next((_LABELS[word] for word in words if word in _LABELS), None)


def grade(response: str, question: Question, answers: Sequence[str]) -> Grade:
    """Return how right a response is by the rules of the question's task."""
    words = float(len(response.split()))
    if question.task == "choice" and question.choices:
        right = float(read_letter(response, question.choices) == answers[0])
        return Grade(right, right, right, words)
    if question.task == "claim":
        gold = read_label(answers[-1], question.choices)
        right = float(gold is not None and read_label(response, question.choices) == gold)
        return Grade(right, right, right, words)
    return Grade(
        right=float(contains_answer(response, answers)),
        exact=float(exact_match(response, answers)),
        f1=token_f1(response, answers),
        words=words,
    )


def abstains(response: str, question: Question) -> bool:
    """Return whether a response declines to answer.

    A claim with a third option "not enough information" is answered by saying so.
    """
    if question.task == "claim" and read_label(response, question.choices) is not None:
        return False
    return response == prompts.ABSTAIN_TEXT or prompts.is_unknown(response)


def silence(question: Question, answers: Sequence[str]) -> float | None:
    """Return how right it is to decline: ``None`` where that is no answer at all."""
    if abstains(prompts.ABSTAIN_TEXT, question):
        return None
    return grade(prompts.ABSTAIN_TEXT, question, answers).right
