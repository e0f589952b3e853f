"""Claims made false: one name or number of a true claim exchanged for another.

Law: what is exchanged stands in the claim's evidence and what is put in its place does not, so that
the evidence contradicts the claim by that word alone.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from specrag_native.evaluation.metrics import contains_answer
from specrag_native.types import Passage

_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_NAME = re.compile(r"\b[A-Z][\w'-]*(?:\s+[A-Z][\w'-]*)*")

_Kind = tuple[str, int]


class Swaps:
    """Exchanges names and numbers of claims for those of other claims.

    Args:
        claims: where names and numbers are taken from.
    """

    def __init__(self, claims: Iterable[str]) -> None:
        found: dict[_Kind, set[str]] = defaultdict(set)
        for claim in claims:
            for kind, start, end in _spans(claim):
                found[kind].add(claim[start:end])
        self._found = {kind: sorted(texts) for kind, texts in found.items()}

    def swapped(self, claim: str, evidence: Sequence[Passage], rng: random.Random) -> str | None:
        """Return the claim with one name or number exchanged; None where nothing can be.

        What the claim begins with, mostly what it is about, stays.
        """
        spans = [
            (kind, start, end)
            for kind, start, end in _spans(claim)
            if start and _stands(claim[start:end], evidence)
        ]
        rng.shuffle(spans)
        for kind, start, end in spans:
            for text in rng.sample(self._found.get(kind, []), min(8, len(self._found[kind]))):
                if text not in claim and not _stands(text, evidence):
                    return f"{claim[:start]}{text}{claim[end:]}"
        return None


def _spans(claim: str) -> list[tuple[_Kind, int, int]]:
    """Return kind, start and end of names and numbers; like kinds can stand for each other."""
    numbers = [(("number", len(m.group())), m.start(), m.end()) for m in _NUMBER.finditer(claim)]
    names = [(("name", len(m.group().split())), m.start(), m.end()) for m in _NAME.finditer(claim)]
    return [*numbers, *names]


def _stands(text: str, evidence: Sequence[Passage]) -> bool:
    return any(contains_answer(f"{p.title}\n{p.text}", [text]) for p in evidence)
