from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native import prompts
from specrag_native.errors import UserError
from specrag_native.evaluation.intervals import bootstrap_mean, paired_difference
from specrag_native.evaluation.metrics import (
    abstains,
    contains_answer,
    exact_match,
    grade,
    normalise,
    read_label,
    read_letter,
    silence,
    token_f1,
)
from specrag_native.evaluation.summary import aurc, calibration, ece, quantile, risk_coverage
from specrag_native.types import Question

CHOICES = {"A": "a red stone", "B": "the blue sea", "C": "sand", "D": "red stone wall"}
CLAIM = Question("Snow is warm.", "claim", {"A": "true", "B": "false"})
CLAIM3 = Question("Snow is warm.", "claim", {"A": "true", "B": "false", "C": "not enough info"})


def test_normalising_drops_case_punctuation_and_articles() -> None:
    assert normalise("The  U.S. Navy\u2019s \u201cAn Apple\u201d!") == "us navys apple"
    assert normalise("Use `run_cache` for $5+") == "use runcache for 5"


def test_inclusion_asks_for_whole_words() -> None:
    assert contains_answer("It was in the north of Oslo.", ["Oslo"])
    assert not contains_answer("It lies in the north.", ["no", "Nor"])
    assert contains_answer("by Rio Grande del Norte", ["x", "rio grande"])
    assert not contains_answer("anything", ["the", "?!"])


def test_exact_match_and_f1_by_hand() -> None:
    assert exact_match("the Rio Grande.", ["rio grande"])
    assert not exact_match("Rio Grande river", ["rio grande"])
    # 2 of 3 words precise, 2 of 2 found: 2 * 2 / (3 + 2)
    assert token_f1("Rio Grande river", ["rio grande", "other"]) == pytest.approx(0.8)
    # a repeated word counts once: common 1, 2 * 1 / (2 + 2)
    assert token_f1("rio rio", ["rio grande"]) == pytest.approx(0.5)
    assert token_f1("", ["rio"]) == 0.0


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(b) because", "B"),
        ("The answer is C.", "C"),
        ("b: the blue sea", "B"),
        ("It is the blue sea", "B"),
        ("A red stone wall", "D"),
        ("A", "A"),
        ("Z", None),
        ("nothing of it", None),
    ],
)
def test_an_option_is_read_from_letter_or_text(response: str, letter: str | None) -> None:
    assert read_letter(response, CHOICES) == letter


def test_numbered_options_are_read_too() -> None:
    assert read_letter("3", {"1": "x", "2": "y", "3": "z", "4": "w"}) == "3"


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("true", "true"),
        ("B", "false"),
        ("The claim is false.", "false"),
        ("Yes, it is", "true"),
        ("supported", "true"),
        ("perhaps", None),
    ],
)
def test_a_claim_is_read_from_label_letter_or_synonym(response: str, label: str | None) -> None:
    assert read_label(response, CLAIM.choices) == label


def test_a_third_label_is_read_where_there_is_one() -> None:
    assert read_label("unknown", CLAIM3.choices) == "not enough info"
    assert read_label("C", CLAIM3.choices) == "not enough info"
    assert not abstains("unknown", CLAIM3)
    assert abstains("unknown", CLAIM)


def test_declining_is_an_answer_where_an_option_says_so() -> None:
    assert grade(prompts.ABSTAIN_TEXT, CLAIM3, ["C", "not enough info"]).right == 1.0
    assert silence(CLAIM3, ["C", "not enough info"]) == 1.0
    assert silence(CLAIM3, ["A", "true"]) == 0.0
    assert silence(CLAIM, ["A", "true"]) is None
    assert silence(Question("Who?"), ["Ada"]) is None


def test_grades_of_each_task() -> None:
    free = grade("a tall man of Oslo", Question("Where?"), ["Oslo", "Kristiania"])
    assert (free.right, free.exact, free.words) == (1.0, 0.0, 5.0)
    assert free.f1 == pytest.approx(2 * 1 / (4 + 1))
    claim = grade("False", CLAIM, ["B", "false"])
    assert (claim.right, claim.exact, claim.f1) == (1.0, 1.0, 1.0)
    choice = grade("sand", Question("What?", "choice", CHOICES), ["C", "sand"])
    assert choice.right == 1.0
    assert grade("A", Question("What?", "choice", CHOICES), ["C", "sand"]).right == 0.0


def test_declining_is_no_answer() -> None:
    assert abstains(prompts.ABSTAIN_TEXT, Question("Who?"))
    assert abstains("unknown", Question("Who?"))
    assert not abstains("Ada", Question("Who?"))


def test_risk_coverage_by_hand() -> None:
    pairs = [(0.9, 1.0), (0.5, 0.0), (0.8, 0.0), (0.1, 1.0)]
    curve = risk_coverage(pairs)  # surest first: right, wrong, wrong, right
    assert curve == [
        (0.25, 0.0),
        (0.5, 0.5),
        (0.75, pytest.approx(2 / 3)),
        (1.0, 0.5),
    ]
    assert aurc(pairs) == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)


def test_equal_confidences_are_averaged_over_orders() -> None:
    assert aurc([(0.5, 1.0), (0.5, 0.0)]) == pytest.approx(0.5)
    assert aurc([(0.5, 0.0), (0.5, 1.0)]) == pytest.approx(0.5)


def test_calibration_error_by_hand() -> None:
    pairs = [(0.95, 1.0), (0.91, 0.0), (0.2, 0.0), (1.0, 1.0)]
    bins = calibration(pairs)
    assert [(b.low, b.n) for b in bins] == [(0.2, 1), (0.9, 3)]
    assert bins[1].accuracy == pytest.approx(2 / 3)
    expected = (3 / 4) * abs(2 / 3 - (0.95 + 0.91 + 1.0) / 3) + (1 / 4) * 0.2
    assert ece(pairs) == pytest.approx(expected)


def test_quantiles_are_interpolated() -> None:
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.9) == pytest.approx(1.9)
    assert quantile([4.0], 0.9) == 4.0


def test_intervals_hold_the_mean_and_shrink_with_n() -> None:
    few, many = bootstrap_mean([0.0, 1.0] * 5), bootstrap_mean([0.0, 1.0] * 500)
    assert few.mean == many.mean == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
    # normal approximation: 1.96 * 0.5 / sqrt(1000)
    assert many.high - 0.5 == pytest.approx(1.96 * 0.5 / math.sqrt(1000), rel=0.1)


def test_pairing_removes_what_both_share() -> None:
    a = [1.0, 1.0, 0.0, 0.0] * 10
    b = [1.0, 0.0, 0.0, 0.0] * 10
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(0.25)
    assert difference.low >= 0.0 and difference.excludes_zero
    assert paired_difference(a, a).low == paired_difference(a, a).high == 0.0


def test_intervals_of_nothing_or_of_unlike_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="no questions"):
        bootstrap_mean([])
    with pytest.raises(UserError, match="equally many, got 1 and 2"):
        paired_difference([1.0], [1.0, 2.0])


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40))
def test_areas_and_errors_stay_between_0_and_1(pairs: list[tuple[float, float]]) -> None:
    assert 0.0 <= aurc(pairs) <= 1.0
    assert 0.0 <= ece(pairs) <= 1.0
    assert risk_coverage(pairs)[-1][1] == pytest.approx(1 - sum(r for _, r in pairs) / len(pairs))
