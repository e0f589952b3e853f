"""What other thresholds would have come to, by hand."""

from __future__ import annotations

import pytest

from specrag_native.evaluation.policy import Policy, Step, Trace, cheapest, policies, replay

FEW, MANY = "rationales", "more"


def step(name: str, right: float, confidence: float, tokens: int, *, found: bool = True) -> Step:
    return Step(name, found, right, confidence, confidence, tokens)


SURE = Trace(0.9, 1.0, 50, (step(FEW, 1, 0.8, 100), step(MANY, 1, 0.9, 300)), 1.0)
HARD = Trace(0.3, 0.0, 70, (step(FEW, 0, 0.4, 120), step(MANY, 1, 0.6, 320)), 1.0)
EMPTY = Trace(None, 0.0, 0, (step(FEW, 0, 0.7, 80), step(MANY, 0, 0.0, 280, found=False)), 0.0)
TRACES = [SURE, HARD, EMPTY]


def test_a_draft_that_is_accepted_costs_its_verification_alone() -> None:
    out = replay(Policy((FEW, MANY), 0.9, 0.0), [SURE])
    assert (out.right, out.tokens, out.accepted, out.abstained) == (1.0, 50.0, 1.0, 0.0)


def test_verification_is_paid_for_whether_or_not_a_draft_is_accepted() -> None:
    assert replay(Policy((MANY,), 1.0, 0.0), [SURE]).tokens == 350


def test_where_there_is_no_draft_none_is_accepted() -> None:
    assert replay(Policy((MANY,), 0.0, 0.0), [EMPTY]).accepted == 0


def test_an_answer_under_abstain_below_is_none() -> None:
    doubted = replay(Policy((FEW,), 1.0, 0.0, abstain_below=0.5), [HARD])
    assert (doubted.abstained, doubted.tokens) == (1.0, 70 + 120)
    assert replay(Policy((FEW,), 1.0, 0.0, abstain_below=0.4), [HARD]).abstained == 0.0


@pytest.mark.parametrize(
    ("above", "right", "tokens"), [(0.0, 0.0, 70 + 120), (0.5, 1.0, 70 + 120 + 320)]
)
def test_steps_are_taken_until_one_is_accepted(above: float, right: float, tokens: int) -> None:
    out = replay(Policy((FEW, MANY), 0.5, above), [HARD])
    assert (out.right, out.tokens) == (right, tokens)


def test_the_probability_decides_what_is_accepted_the_confidence_what_is_withheld() -> None:
    trace = Trace(None, 0.0, 0, (Step(FEW, True, 0.0, 0.9, 0.3, 100), step(MANY, 1, 0.6, 300)), 1.0)
    assert replay(Policy((FEW, MANY), 1.0, 0.8), [trace]).tokens == 100
    assert replay(Policy((FEW, MANY), 1.0, 0.8, abstain_below=0.4), [trace]).right == 1.0
    assert 0.9 in {p.accept_above for p in policies([trace], [(FEW, MANY)])}


def test_the_last_word_counts_also_when_it_is_that_nothing_was_found() -> None:
    accepted = replay(Policy((FEW, MANY), 1.0, 0.5), [EMPTY])
    assert (accepted.abstained, accepted.tokens) == (0.0, 80)
    read_on = replay(Policy((FEW, MANY), 1.0, 0.75), [EMPTY])
    assert (read_on.abstained, read_on.tokens) == (1.0, 360)


def test_means_are_over_all_questions() -> None:
    out = replay(Policy((FEW, MANY), 0.9, 0.5), TRACES)
    assert out.right == pytest.approx(2 / 3)
    assert out.tokens == pytest.approx((50 + (70 + 120 + 320) + (0 + 80)) / 3)
    assert out.accepted == pytest.approx(1 / 3)


def test_the_cheapest_policy_that_is_right_often_enough() -> None:
    candidates = policies(TRACES, [(FEW, MANY), (MANY,)])
    best = cheapest(TRACES, candidates, least=2 / 3)
    assert best is not None
    policy, outcome = best
    assert outcome.right >= 2 / 3
    everything = [replay(p, TRACES) for p in candidates]
    assert outcome.tokens == min(o.tokens for o in everything if o.right >= 2 / 3)
    assert replay(policy, TRACES) == outcome
    careless = cheapest(TRACES, candidates, least=0.0)
    assert careless is not None and careless[1].tokens < outcome.tokens


def test_no_policy_is_better_than_what_was_written() -> None:
    assert cheapest(TRACES, policies(TRACES, [(FEW, MANY)]), least=0.9) is None
    assert cheapest([], policies([], [(FEW,)]), least=1.0) is None
