"""Equal prompts begin differently, so one subset can be drafted several times."""

from __future__ import annotations

from pathlib import Path

import pytest

from specrag_native.answering.drafter import Drafter
from specrag_native.answering.pipeline import Pipeline
from specrag_native.config import Config
from specrag_native.errors import ModelFileError
from specrag_native.events import DraftText
from specrag_native.protocol import GenerateOptions, Generation, Prompt, Segment, Stage
from specrag_native.types import Question, Subset
from tests.fakes import FakeEngine, FakeModels, hits, passage
from tests.tiny_model import tiny_engine as engine

RIVER: Prompt = (Segment("The mill stands "), Segment("by the river"))
HILL: Prompt = (Segment("The mill stands "), Segment("on a hill"))


def options(*, keep: int = 0) -> GenerateOptions:
    stage = Stage(max_tokens=6, then=(Segment(" so: "),), watch=("q",))
    return GenerateOptions((stage, Stage(max_tokens=3)), keep=keep, distinct=True)


def first_token(generation: Generation) -> tuple[int, float]:
    completion = generation.completions[0]
    return completion.tokens[0], completion.logprobs[0]


def test_each_begins_with_the_token_that_is_next_likeliest(tiny: Path) -> None:
    model = engine(tiny)
    many = [first_token(g) for g in model.generate([RIVER] * 12, options())]
    assert len({token for token, _ in many}) == 12
    assert [p for _, p in many] == sorted((p for _, p in many), reverse=True)
    # No other token is likelier than these: what a prompt alone begins with, and what it begins
    # with where that is refused.
    alone = model.generate([RIVER], options())[0].completions[0]
    assert many[0] == (alone.tokens[0], pytest.approx(alone.logprobs[0], abs=0.02))
    begun = model.generate([RIVER], GenerateOptions((Stage(max_tokens=1),)))[0].text
    refused = Stage(max_tokens=1, watch=(begun,), watch_from=1.0)
    other = model.generate([RIVER], GenerateOptions((refused,)))[0]
    assert other.tokens[0] == many[1][0]


def test_others_are_as_they_were(tiny: Path) -> None:
    model = engine(tiny)
    plain = model.generate([RIVER, HILL], GenerateOptions(options().stages))
    mixed = model.generate([RIVER, HILL, RIVER, HILL], options())
    for one, other in zip(plain, mixed[:2], strict=True):
        assert one.tokens == other.tokens
        assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=0.02)
    assert first_token(mixed[2])[0] != first_token(mixed[0])[0]
    assert first_token(mixed[3])[0] != first_token(mixed[1])[0]
    twice = model.generate([RIVER, RIVER], GenerateOptions(options().stages))
    assert twice[0].tokens == twice[1].tokens  # equal, as they were not asked to differ


def test_what_equal_prompts_share_is_computed_once(tiny: Path) -> None:
    one = engine(tiny).generate([RIVER], options()).usage
    many = engine(tiny).generate([RIVER] * 4, options()).usage
    assert many.prefilled == one.prefilled
    assert many.decoded > 3 * (one.decoded - 3)


def test_a_call_of_several_passes_begins_each_differently(tiny: Path) -> None:
    wide = engine(tiny).generate([RIVER] * 4, options())
    narrow = engine(tiny, n_seq_max=3).generate([RIVER] * 4, options())
    assert [first_token(g)[0] for g in narrow] == [first_token(g)[0] for g in wide]


def test_those_of_a_prompt_that_is_kept_all_go_on(tiny: Path) -> None:
    every = engine(tiny).generate([RIVER, HILL], options())
    watched = [g.completions[0].watched[0] for g in every]
    kept = 0 if watched[0] < watched[1] else 1
    batch = engine(tiny).generate([RIVER, RIVER, HILL, HILL], options(keep=2))
    went_on = [g.finish_reason != "outranked" for g in batch]
    assert went_on == [kept == 0] * 2 + [kept == 1] * 2


def test_only_a_greedy_choice_has_a_next_best(tiny: Path) -> None:
    with pytest.raises(ModelFileError, match="only with a temperature of 0"):
        engine(tiny).generate([RIVER], GenerateOptions(temperature=0.5, distinct=True))


SUBSETS = [Subset((passage(i),)) for i in range(3)]


@pytest.mark.parametrize("layout", ["exact", "standalone"])
def test_each_subset_has_several_drafts(tiny: Path, layout: str) -> None:
    asked = Question("What is here?")
    base = Config.from_mapping({"draft_form": "answer-first", "layout": layout})
    once, usage = Drafter(engine(tiny), base).draft(asked, SUBSETS)
    both = base.replace(drafts_per_subset=2)
    shown: dict[int, str] = {}

    def on_text(draft: int, part: int, text: str) -> None:
        shown[draft] = shown.get(draft, "") + text

    twice, more = Drafter(engine(tiny), both).draft(asked, SUBSETS, on_text=on_text)
    assert [d.subset for d in twice] == [s for s in SUBSETS for _ in range(2)]
    assert [d.answer for d in twice[::2]] == [d.answer for d in once]
    for first, second in zip(twice[::2], twice[1::2], strict=True):
        assert first.answer != second.answer
        assert first.unknown_logprob == second.unknown_logprob
    assert (more.prefilled, set(shown)) == (usage.prefilled, set(range(6)))
    some, _ = Drafter(engine(tiny), both.replace(n_written=1)).draft(asked, SUBSETS)
    written = [d.subset for d in some if not d.outranked]
    assert len(written) == 2 and written[0] == written[1]


def test_all_of_them_are_shown_and_verified() -> None:
    answers = iter(["Bern", "Basel", "Bern", "Chur"])

    def write(prompt: str) -> tuple[str, str]:
        answer = next(answers)
        return f"Fact number 1 is {answer}.", answer

    models = FakeModels(FakeEngine(write), verifier := FakeEngine())
    config = Config(n_drafts=2, passages_per_draft=1, drafts_per_subset=2, repair="off")
    events: list[object] = []
    answer = Pipeline(models, config=config).answer(
        "Which town is it?", hits=hits(2), on_event=events.append
    )
    assert {e.draft for e in events if isinstance(e, DraftText)} == {0, 1, 2, 3}
    drafts = [v.draft for v in answer.verdicts]
    assert [d.answer for d in drafts] == ["Bern", "Basel", "Bern", "Chur"]
    assert len({d.subset.ids for d in drafts}) == 2
    assert len(verifier.scored) == 6  # two prompts for each text, and two drafts say the same
    assert not answer.skipped


def test_that_a_subset_holds_nothing_is_said_once() -> None:
    def write(prompt: str) -> tuple[str, str]:
        return ("none", "unknown") if "Fact number 0" in prompt else ("Fact number 1.", "Bern")

    models = FakeModels(FakeEngine(write), FakeEngine())
    config = Config(n_drafts=2, passages_per_draft=1, drafts_per_subset=3, repair="off")
    answer = Pipeline(models, config=config).answer("Which town is it?", hits=hits(2))
    told = [v.draft.unknown for v in answer.verdicts]
    assert sorted(told) == [False, False, False, True]
    assert not answer.left_out
