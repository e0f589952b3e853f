"""The algebra of the scores, with known log-probabilities."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering.verifier import Scored, Verifier, best, draft_score, judge, log_add
from specrag_native.config import Config
from specrag_native.errors import Cancelled
from specrag_native.types import Draft, LogprobSpan, Question, Subset
from tests.fakes import FakeEngine, passage

QUESTION = Question("Which colour is the door?")


def draft(answer: str, rationale: str = "it says so", *, unknown: bool = False) -> Draft:
    return Draft(
        answer,
        rationale,
        Subset((passage(0),)),
        LogprobSpan(-0.4, 2),
        LogprobSpan(-1.5, 3),
        unknown,
    )


def logprob(text: str) -> float:
    table = {"Yes": -0.1, "No": -2.4, " red": -0.3, " blue": -3.0}
    return table.get(text, -0.6)


def test_log_add_is_the_log_of_the_sum() -> None:
    assert log_add(math.log(0.2), math.log(0.3)) == pytest.approx(math.log(0.5))
    assert log_add(-math.inf, -1.0) == -1.0
    assert log_add(-math.inf, -math.inf) == -math.inf
    assert log_add(-2000.0, -2000.0) == pytest.approx(-2000.0 + math.log(2))


@given(st.floats(-500, 0), st.floats(-500, 0))
def test_log_add_is_symmetric_and_not_below_its_parts(a: float, b: float) -> None:
    assert log_add(a, b) == log_add(b, a) >= max(a, b)


def test_the_draft_score_is_a_sum_of_two_probabilities() -> None:
    d = draft("red")
    assert draft_score(d, "mean") == pytest.approx(math.log(math.exp(-0.5) + math.exp(-0.2)))
    assert draft_score(d, "sum") == pytest.approx(math.log(math.exp(-1.5) + math.exp(-0.4)))


def test_scores_follow_the_definition() -> None:
    engine = FakeEngine(logprob=logprob)
    (verdict,), usage = Verifier(engine, Config()).verify(QUESTION, [draft("red")])
    contained = (1 * -0.3 + 3 * -0.6) / 4
    assert verdict.scores.self_containment == pytest.approx(contained)
    assert verdict.scores.self_reflection == pytest.approx(-0.1)
    own = draft_score(draft("red"), "mean")
    assert verdict.scores.total == pytest.approx(own + contained - 0.1)
    assert verdict.support == pytest.approx(math.exp(-0.1) / (math.exp(-0.1) + math.exp(-2.4)))
    assert usage.prefilled == 20


def test_raw_scores_are_products_of_all_tokens() -> None:
    engine = FakeEngine(logprob=logprob)
    config = Config(normalisation="sum")
    (verdict,), _ = Verifier(engine, config).verify(QUESTION, [draft("red")])
    assert verdict.scores.self_containment == pytest.approx(1 * -0.3 + 3 * -0.6)


@pytest.mark.parametrize("left_out", ["draft_score", "self_containment", "self_reflection"])
def test_each_term_can_be_left_out(left_out: str) -> None:
    engine = FakeEngine(logprob=logprob)
    (full,), _ = Verifier(engine, Config()).verify(QUESTION, [draft("red")])
    config = Config.from_mapping({f"use_{left_out}": False})
    (part,), _ = Verifier(engine, config).verify(QUESTION, [draft("red")])
    term = {
        "draft_score": full.scores.draft,
        "self_containment": full.scores.self_containment,
        "self_reflection": full.scores.self_reflection,
    }[left_out]
    assert term is not None
    assert part.scores.total == pytest.approx(full.scores.total - term)


def test_the_most_contained_draft_wins() -> None:
    engine = FakeEngine(logprob=logprob)
    verdicts, _ = Verifier(engine, Config()).verify(
        QUESTION, [draft("blue"), draft("red"), draft("green")]
    )
    winner = best(verdicts)
    assert winner is not None
    assert winner.draft.answer == "red"


def test_unknown_drafts_are_never_read_by_the_verifier() -> None:
    engine = FakeEngine(logprob=logprob)
    verdicts, _ = Verifier(engine, Config()).verify(
        QUESTION, [draft("unknown", unknown=True), draft("red")]
    )
    assert [v.verified for v in verdicts] == [False, True]
    assert not any("unknown" in text for text in engine.scored)


def test_identical_drafts_are_scored_once() -> None:
    engine = FakeEngine(logprob=logprob)
    verdicts, _ = Verifier(engine, Config()).verify(QUESTION, [draft("red")] * 3)
    assert len(engine.scored) == 2  # one text, ending in Yes and in No
    assert all(v.verified for v in verdicts)


def test_nothing_known_costs_no_verifier_call() -> None:
    engine = FakeEngine(logprob=logprob)
    verdicts, usage = Verifier(engine, Config()).verify(QUESTION, [draft("unknown", unknown=True)])
    assert engine.scored == []
    assert usage.prefilled == 0
    assert best(verdicts) is None


def test_what_was_scored_before_is_not_scored_again() -> None:
    engine, scored = FakeEngine(logprob=logprob), Scored()
    verifier = Verifier(engine, Config())
    verifier.verify(QUESTION, [draft("red")], scored=scored)
    verdicts, usage = verifier.verify(QUESTION, [draft("blue"), draft("red")], scored=scored)
    assert len(engine.scored) == 4 and usage.prefilled == 20
    assert all(v.verified for v in verdicts)
    assert verdicts == Verifier(engine, Config()).verify(QUESTION, [draft("blue"), draft("red")])[0]


def test_one_by_one_keeps_what_was_scored_before_it_was_cancelled() -> None:
    class Cut(FakeEngine):
        def score(self, prompts: Any, *, cancel: Any = None) -> Any:
            if len(self.scored) == 4:
                raise Cancelled("cancelled")
            return super().score(prompts)

    drafts = [sure("red", "a", 0.5), sure("blue", "b", 0.7), sure("grey", "c", 0.9)]
    scored = Scored()
    with pytest.raises(Cancelled):
        Verifier(Cut(logprob=logprob), Config()).verify(
            QUESTION, drafts, scored=scored, one_by_one=True
        )
    assert [v.verified for v in judge(drafts, scored, Config())] == [False, True, True]
    assert scored.usage.prefilled == 40


@pytest.mark.parametrize("layout", ["user", "assistant"])
def test_no_passage_reaches_the_verifier(layout: str) -> None:
    engine = FakeEngine(logprob=logprob)
    config = Config.from_mapping({"verifier_layout": layout})
    Verifier(engine, config).verify(QUESTION, [draft("red")])
    assert engine.scored
    assert not any(passage(0).text in text for text in engine.scored)


def auto(**values: float) -> Config:
    return Config.from_mapping({"verify": "auto", **values})


def sure(answer: str, rationale: str, probability: float) -> Draft:
    span = LogprobSpan(math.log(probability), 1)
    return Draft(answer, rationale, Subset((passage(0),)), span, span)


def test_drafts_that_agree_and_are_believed_are_not_verified() -> None:
    engine = FakeEngine(logprob=logprob)
    drafts = [sure("red", "a", 0.95), sure("Red.", "b", 0.97), draft("unknown", unknown=True)]
    verdicts, usage = Verifier(engine, auto()).verify(QUESTION, drafts)
    assert engine.scored == [] and usage.prefilled == 0
    winner = best(verdicts)
    assert winner is not None and winner.draft.rationale == "b" and not winner.verified
    for less in ([sure("red", "a", 0.95)], [sure("red", "a", 0.95), sure("red", "b", 0.5)]):
        engine = FakeEngine(logprob=logprob)
        Verifier(engine, auto()).verify(QUESTION, less)
        assert len(engine.scored) == 2


def test_one_draft_of_each_answer_is_verified_the_most_believed() -> None:
    engine = FakeEngine(logprob=logprob)
    drafts = [sure("red", "a", 0.5), sure("red", "b", 0.8), sure("blue", "c", 0.7)]
    verdicts, _ = Verifier(engine, auto()).verify(QUESTION, drafts)
    assert [v.verified for v in verdicts] == [False, True, True]


def test_a_draft_that_cannot_win_is_not_verified() -> None:
    engine = FakeEngine(logprob=lambda text: -0.01)
    drafts = [sure("red", "a", 0.9), sure("blue", "b", 0.01)]
    verdicts, _ = Verifier(engine, auto()).verify(QUESTION, drafts)
    assert [v.verified for v in verdicts] == [True, False]
    engine = FakeEngine(logprob=lambda text: -9.0)
    verdicts, _ = Verifier(engine, auto()).verify(QUESTION, drafts)
    assert [v.verified for v in verdicts] == [True, True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["red", "blue", "grey"]), st.floats(0.01, 0.89)), max_size=6
    ),
    st.floats(-4, 0),
)
def test_pruning_never_changes_the_answer(made: list[tuple[str, float]], level: float) -> None:
    """With one draft per answer, pruned and full verification choose the same."""
    drafts = [sure(a, f"r{a}", p) for a, p in dict(made).items()]

    def known(text: str) -> float:
        return level * (1 + len(text) % 3)

    full, _ = Verifier(FakeEngine(logprob=known), Config()).verify(QUESTION, drafts)
    less, _ = Verifier(FakeEngine(logprob=known), auto()).verify(QUESTION, drafts)
    a, b = best(full), best(less)
    assert (a and a.draft) == (b and b.draft)
    assert sum(v.verified for v in less) <= sum(v.verified for v in full)
