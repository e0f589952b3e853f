"""By how much one of two continuations of a prompt was the better choice, where they part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from specrag_native.engine import NativeEngine
from specrag_native.prompts import DRAFTER_ANSWER
from specrag_native.protocol import Completion, Generation, Prompt, Segment

END_OF_TURN = "<|im_end|>"
"""What ends a turn of the default drafter."""


def gap(engine: NativeEngine, prompt: Prompt, one: Generation, other: Generation) -> float | None:
    """Return by how many nats one draft's choice beats the other's, where they part.

    The choices are scored behind the same text in one call, as neither draft computed them.
    ``None`` when that text, tokenised anew, is not the tokens that were written.
    """
    written: list[Segment] = []
    for x, y in zip(one.completions, other.completions, strict=False):
        if x.tokens == y.tokens:
            written += [Segment(x.text), Segment(f"\n{DRAFTER_ANSWER}")]
            continue
        pairs = zip(x.tokens, y.tokens, strict=False)
        at = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        written.append(Segment(_text(engine, x.tokens[:at])))
        found = engine.tokenize((*prompt, *written))
        if found[len(found) - at :] != list(x.tokens[:at]):
            return None
        sides = [_choices(engine, said, at) for said in (x, y)]
        scores = iter(engine.score([(*prompt, *written, c) for side in sides for c in side]))
        best = [max(next(scores).segments[-1].logprobs[0] for _ in side) for side in sides]
        return abs(best[0] - best[1])
    return None


def _choices(engine: NativeEngine, said: Completion, at: int) -> list[Segment]:
    """Return what a completion went on with: its next token, or any that ends a stage."""
    if at < len(said.tokens):
        return [Segment(_text(engine, said.tokens[at : at + 1]), scored=True)]
    return [
        Segment("\n", scored=True),
        Segment("\n\n", scored=True),
        Segment(END_OF_TURN, scored=True, control=True),
    ]


def _text(engine: NativeEngine, tokens: Sequence[int]) -> str:
    return b"".join(engine._model.piece(t) for t in tokens).decode(errors="replace")
