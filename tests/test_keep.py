"""Of many prompts only the most promising are continued: all are ranked, the best are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from specrag_native.answering.drafter import Drafter
from specrag_native.config import Config
from specrag_native.errors import ConfigError, ModelFileError
from specrag_native.native import new_cancel_flag
from specrag_native.protocol import GenerateOptions, Generation, Prompt, Segment, Stage
from specrag_native.types import Passage, Question, Subset
from tests.tiny_model import tiny_engine as engine

PROMPTS: list[Prompt] = [
    (Segment("The mill stands "), Segment(text))
    for text in ("by the river", "on a hill", "in the old town", "near the bank", "behind it")
]


def options(keep: int, n: int = 6) -> GenerateOptions:
    stage = Stage(max_tokens=n, then=(Segment(" so: "),), watch=("q",))
    return GenerateOptions((stage, Stage(max_tokens=3)), keep=keep)


def kept(batch: Sequence[Generation]) -> set[int]:
    return {i for i, g in enumerate(batch) if g.finish_reason != "outranked"}


def best(batch: Sequence[Generation], n: int) -> set[int]:
    return set(sorted(range(len(batch)), key=lambda i: batch[i].completions[0].watched[0])[:n])


@pytest.mark.parametrize("n", [1, 2, 4, 5, 9])
def test_the_least_likely_to_begin_with_the_watched_text_go_on(tiny: Path, n: int) -> None:
    every = engine(tiny).generate(PROMPTS, options(0))
    some = engine(tiny).generate(PROMPTS, options(n))
    assert kept(some) == best(every, n)
    for i, (one, other) in enumerate(zip(every, some, strict=True)):
        first = other.completions[0]
        assert list(first.watched) == pytest.approx(list(one.completions[0].watched), abs=0.02)
        if i in kept(some):
            assert list(other.logprobs) == pytest.approx(list(one.logprobs), abs=0.02)
        else:
            assert (len(other.completions), first.tokens, first.text) == (1, (), "")
    if n < len(PROMPTS):
        assert some.usage.decoded < every.usage.decoded
    assert some.usage.prefilled == every.usage.prefilled


def test_nothing_is_shown_of_what_is_outranked(tiny: Path) -> None:
    shown: dict[int, str] = {}

    def on_text(prompt: int, stage: int, text: str) -> None:
        shown[prompt] = shown.get(prompt, "") + text

    batch = engine(tiny).generate(PROMPTS, options(2), on_text=on_text)
    assert set(shown) == kept(batch)
    for i in kept(batch):
        assert shown[i] == "".join(c.text for c in batch[i].completions)


def test_of_several_passes_each_continues_the_best_so_far(tiny: Path) -> None:
    every = engine(tiny).generate(PROMPTS, options(0))
    watched = [g.completions[0].watched[0] for g in every]
    narrow = engine(tiny, n_ctx=256)
    longest = max(len(narrow.tokenize(p)) for p in PROMPTS)
    alone = narrow.facts.n_ctx - longest - 30  # room for one prompt in a pass, and no more
    batch = narrow.generate(PROMPTS, options(1, n=alone))
    assert kept(batch) == {i for i, w in enumerate(watched) if w == min(watched[: i + 1])}


def test_only_what_goes_on_needs_room(tiny: Path) -> None:
    small = engine(tiny, n_ctx=256)
    room = (small.facts.n_ctx - sum(len(small.tokenize(p)) for p in PROMPTS)) // 2
    assert len(kept(small.generate(PROMPTS, options(1, n=room)))) == 1  # all in one pass


def test_a_call_that_keeps_some_can_be_cancelled(tiny: Path) -> None:
    model = engine(tiny)
    flag = new_cancel_flag()

    def on_text(prompt: int, stage: int, text: str) -> None:
        flag.cancel()

    batch = model.generate(PROMPTS, options(2), on_text=on_text, cancel=flag)
    reasons = [g.finish_reason for g in batch]
    assert reasons.count("outranked") == 3 and "cancelled" in reasons
    assert kept(model.generate(PROMPTS, options(2))) == best(model.generate(PROMPTS, options(0)), 2)


def test_an_engine_is_as_before_after_a_call_that_kept_some(tiny: Path) -> None:
    model = engine(tiny)
    before = model.generate(PROMPTS, options(0))
    model.generate(PROMPTS, options(2))
    after = model.generate(PROMPTS, options(0))
    for one, other in zip(before, after, strict=True):
        assert list(other.logprobs) == pytest.approx(list(one.logprobs), abs=0.02)


def test_what_ranks_must_be_watched(tiny: Path) -> None:
    with pytest.raises(ModelFileError, match="needs a text to watch"):
        engine(tiny).generate(PROMPTS, GenerateOptions((Stage(),), keep=1))


SUBSETS = [
    Subset((Passage(id=f"p{i}", document="d.txt", title=f"Part {i}", text=f"The mill is {word}."),))
    for i, word in enumerate(("old", "new", "gone", "a house"))
]


def test_the_drafter_writes_the_drafts_that_promise_most(tiny: Path) -> None:
    asked = Question("What is the mill?")
    every, whole = Drafter(engine(tiny), Config()).draft(asked, SUBSETS)
    some, usage = Drafter(engine(tiny), Config(n_written=2)).draft(asked, SUBSETS)
    assert [d.subset for d in some] == SUBSETS
    ranks = sorted(every, key=lambda d: d.unknown_logprob or 0.0)
    assert {d.subset.ids for d in some if not d.outranked} == {d.subset.ids for d in ranks[:2]}
    for draft in some:
        assert draft.unknown_logprob is not None
        if draft.outranked:
            assert draft.unknown and not draft.rationale
        else:
            assert draft.answer == next(d.answer for d in every if d.subset == draft.subset)
    assert usage.decoded < whole.decoded


def test_how_many_are_written_is_checked() -> None:
    with pytest.raises(ConfigError, match="n_written must be between 1 and 200, got 0"):
        Config(n_written=0)
