"""The work that settings are measured with: what drafter and verifier do for one question.

Law: every text here is invented, and no two calls share more than the product's own calls do, so
that nothing is measured that a cache has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specrag_native import prompts
from specrag_native.encoders import NativeCrossEncoder
from specrag_native.engine import NativeEngine
from specrag_native.errors import Cancelled
from specrag_native.protocol import CancelFlag, Engine, GenerateOptions, Prompt, Stage
from specrag_native.types import Passage, Question, Usage

N_SLOTS = 5  # drafts written together
DRAFT_TOKENS = 25  # written per draft
ANSWER_TOKENS = 6  # of a short answer

SENTENCES = (
    "The lighthouse of Veldmark was lit for the first time in the autumn of that year, when forty "
    "fishing boats had been lost on the sandbank within a single winter.",
    "Its keeper, a former clockmaker named Ottilie Brandsen, wrote down the colour of the sea each "
    "morning and sold the notebooks to a dyer in the next valley.",
    "The salt works behind the dunes employed ninety people until the spring tide broke the "
    "eastern wall and filled the drying pans with sand and mussels.",
    "Every third summer the ropewalk is opened to visitors, who may twist a cord of their own and "
    "carry it through the town to the sound of two drums.",
    "The narrow railway to the quarry was laid by prisoners, bought by a baker, and finally given "
    "to the school, whose pupils repaired the engine over nine years.",
    "A council of seven fishers decides which boats may leave the harbour in fog, and its word has "
    "been broken only once, by a captain who never came back.",
)
"""Some 30 tokens each, about a place that does not exist."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: tokens read and written, and the seconds of each inside the library.

    ``largest`` is the number of tokens that the largest call read at once.
    """

    prefilled: int
    prefill_s: float
    decoded: int
    decode_s: float
    largest: int


def generate_once(engine: Engine, cancel: CancelFlag | None = None) -> None:
    """Touch every weight once."""
    options = GenerateOptions((Stage(max_tokens=2, min_tokens=2),))
    engine.generate([(prompts.plain("The keys of the harbour office"),)], options, cancel=cancel)
    _check(cancel)


@dataclass(frozen=True, slots=True)
class Work:
    """What one role does for a question.

    ``run(engine, size, mark, cancel)`` does it once; ``size`` 1 is the least, ``mark`` a number of
    six digits that makes its texts differ from those of every other repetition. ``prefill`` and
    ``decode`` are the tokens of a typical question, which weigh the two speeds. ``warm_up`` makes
    an engine touch every weight once.
    """

    run: Callable[[Any, int, int, CancelFlag | None], Sample]
    sizes: tuple[int, ...]
    prefill: int
    decode: int
    warm_up: Callable[[Any, CancelFlag | None], None] = generate_once


def rank(engine: NativeEngine, size: int, mark: int, cancel: CancelFlag | None = None) -> Sample:
    """Read a question with five passages, or more; nothing is written."""
    texts = [_passage(mark, i, 3).text for i in range(N_SLOTS * size)]
    used = NativeCrossEncoder(engine).rank(_question(mark).text, texts, cancel=cancel).usage
    _check(cancel)
    return Sample(used.prefilled, used.prefill_s, 0, 0.0, used.prefilled)


def rank_once(engine: NativeEngine, cancel: CancelFlag | None = None) -> None:
    """Touch every weight of a cross-encoder once."""
    NativeCrossEncoder(engine).rank("Who keeps the keys?", SENTENCES[:1], cancel=cancel)
    _check(cancel)


def _passage(mark: int, i: int, n_sentences: int) -> Passage:
    """Return passage ``i`` of a repetition; it begins with another sentence than its neighbours."""
    text = " ".join(SENTENCES[(i + j) % len(SENTENCES)] for j in range(n_sentences))
    return Passage(id=f"p{i}", document="invented", title=f"Report {mark:06d}-{i}", text=text)


def _question(mark: int) -> Question:
    return Question(f"What does report {mark:06d} say of the people of Veldmark?")


def draft(engine: Engine, size: int, mark: int, cancel: CancelFlag | None = None) -> Sample:
    """Write five drafts from prompts that share a head and a passage.

    Each begins with the first words of a sentence of its own passage, which a drafter copies.
    """
    question, shared = _question(mark), _passage(mark, 0, size)
    asked: list[Prompt] = []
    for i in range(N_SLOTS):
        own = _passage(mark, i + 1, size)
        begun = " ".join(own.text.split()[:5])
        prompt = prompts.drafter_prompt(engine, question, [shared, own])
        asked.append((*prompt, prompts.plain(f" {begun}")))
    return _written(engine, asked, DRAFT_TOKENS, cancel)


def _written(
    engine: Engine, asked: list[Prompt], n_tokens: int, cancel: CancelFlag | None
) -> Sample:
    """Continue prompts by exactly ``n_tokens`` each; the first of them comes with the prompt."""
    options = GenerateOptions((Stage(max_tokens=n_tokens, min_tokens=n_tokens),))
    batch = engine.generate(asked, options, cancel=cancel)
    _check(cancel)
    used = batch.usage
    decoded = sum(max(0, len(g.tokens) - 1) for g in batch)
    return Sample(used.prefilled, used.prefill_s, decoded, used.decode_s, used.prefilled)


def verify(engine: Engine, size: int, mark: int, cancel: CancelFlag | None = None) -> Sample:
    """Score up to four drafts of up to some 60 tokens, then read passages and answer shortly."""
    question = _question(mark)
    pairs: list[Prompt] = []
    for i in range(size):
        rationale = " ".join(_passage(mark, i, 2).text.split()[: 12 * size])
        pairs += prompts.verifier_prompts(engine, question, f"Report {mark:06d}-{i}", rationale)
    scoring: Usage = engine.score(pairs, cancel=cancel).usage
    _check(cancel)
    passages = [_passage(mark, i, 1) for i in range(2 * size - 1)]
    prompt = prompts.standard_prompt(engine, question, passages, may_abstain=True)
    reading = _written(engine, [prompt], ANSWER_TOKENS, cancel)
    return Sample(
        scoring.prefilled + reading.prefilled,
        scoring.prefill_s + reading.prefill_s,
        reading.decoded,
        reading.decode_s,
        max(scoring.prefilled, reading.largest),
    )


def _check(cancel: CancelFlag | None) -> None:
    if cancel is not None and cancel.cancelled:
        raise Cancelled("stopped while measuring")


WORKS: dict[str, Work] = {
    "drafter": Work(draft, sizes=(1, 2, 4), prefill=1000, decode=N_SLOTS * DRAFT_TOKENS),
    "verifier": Work(verify, sizes=(1, 2, 4), prefill=600, decode=ANSWER_TOKENS),
    "reranker": Work(rank, sizes=(1, 2, 4), prefill=1000, decode=0, warm_up=rank_once),
    "hop_ranker": Work(rank, sizes=(1, 2, 4), prefill=1000, decode=0, warm_up=rank_once),
}
"""By role."""
