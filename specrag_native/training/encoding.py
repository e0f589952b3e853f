"""From drafting examples to tokens: shared evidence once, one branch per question.

Law: prompts come from :mod:`specrag_native.prompts` and tokens from the tokeniser the drafter will
be run with, so what is trained is what is asked; only tokens that the drafter writes itself count
in the loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from specrag_native import prompts
from specrag_native.config import DraftForm
from specrag_native.protocol import Prompt, Segment
from specrag_native.training.examples import DraftExample

IGNORED = -100
"""Label of a token that does not count in the loss."""


class Tokeniser(Protocol):
    """What encoding needs of a model."""

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out messages with the model's chat template."""

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt."""


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows the evidence for one example: tokens, and labels of the same length.

    ``labels[i]`` is the token itself where the drafter writes it, else :data:`IGNORED`. ``start``
    is the index of the first written token.
    """

    tokens: tuple[int, ...]
    labels: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Group:
    """Examples that read the same subset: ``head`` and ``passages`` come before every branch."""

    head: tuple[int, ...]
    passages: tuple[tuple[int, ...], ...]
    branches: tuple[Branch, ...]

    @property
    def n_evidence(self) -> int:
        """Tokens before the branches."""
        return len(self.head) + sum(map(len, self.passages))

    @property
    def n_tokens(self) -> int:
        """Tokens computed for this group: evidence once, then every branch."""
        return self.n_evidence + sum(len(b.tokens) for b in self.branches)


def encode_group(
    tokeniser: Tokeniser,
    examples: Sequence[DraftExample],
    *,
    end_of_turn: int,
    form: DraftForm = "rationale-first",
) -> Group:
    """Encode examples of one subset; all must name the same passages in the same order."""
    head: tuple[int, ...] = ()
    passages: tuple[tuple[int, ...], ...] = ()
    branches: list[Branch] = []
    for example in examples:
        prompt = prompts.drafter_prompt(
            tokeniser, example.question, example.passages, standalone=True, form=form
        )
        first = next(i for i, s in enumerate(prompt) if s.standalone)
        last = max(i for i, s in enumerate(prompt) if s.standalone)
        if not branches:
            head = tuple(tokeniser.tokenize(prompt[:first]))
            passages = tuple(tuple(_inside(tokeniser, s)) for s in prompt[first : last + 1])
        branches.append(_branch(tokeniser, prompt[last + 1 :], example, end_of_turn, form))
    return Group(head, passages, tuple(branches))


def _branch(
    tokeniser: Tokeniser,
    question: Prompt,
    example: DraftExample,
    end_of_turn: int,
    form: DraftForm,
) -> Branch:
    asked = _inside(tokeniser, *question)
    first, between, second = (
        _inside(tokeniser, segment)
        for segment in prompts.drafter_completion(example.rationale, example.answer, form=form)
    )
    tokens = [*asked, *first, *between, *second, end_of_turn]
    labels = [
        *[IGNORED] * len(asked),
        *first,
        between[0],
        *[IGNORED] * (len(between) - 1),
        *second,
        end_of_turn,
    ]
    return Branch(tuple(tokens), tuple(labels), len(asked))


def _inside(tokeniser: Tokeniser, *segments: Segment) -> list[int]:
    """Return the tokens of segments that stand inside a prompt: no start token before them."""
    return tokeniser.tokenize(segments)[len(tokeniser.tokenize(())) :]


def encode(
    tokeniser: Tokeniser,
    examples: Iterable[DraftExample],
    *,
    end_of_turn: int,
    max_tokens: int,
    form: DraftForm = "rationale-first",
) -> Iterator[Group]:
    """Encode examples group by group; neighbours with the same subset make one group.

    A group whose evidence with its longest branch exceeds ``max_tokens`` is left out.
    """
    for _, group in itertools.groupby(examples, lambda e: e.subset_key):
        encoded = encode_group(tokeniser, list(group), end_of_turn=end_of_turn, form=form)
        longest = max(len(b.tokens) for b in encoded.branches)
        if encoded.n_evidence + longest <= max_tokens:
            yield encoded
