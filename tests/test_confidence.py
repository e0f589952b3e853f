"""How far a draft is trusted, and which models' settings are used."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering import calibration
from specrag_native.answering.confidence import (
    FEATURES,
    READING_FEATURES,
    borne_out,
    ceiling,
    confidence,
    draft_confidence,
    draft_features,
    features,
    reading_confidence,
    reading_features,
)
from specrag_native.config import Config
from specrag_native.errors import ConfigError
from specrag_native.types import Draft, LogprobSpan, Passage, Scores, Subset, Verdict
from tests.fakes import passage


def verdict(
    answer: str,
    *,
    yes: float | None = 0.8,
    rationale: str = "Fact number 0 is here",
    unknown: bool = False,
) -> Verdict:
    span = LogprobSpan(-0.4, 2)
    draft = Draft(answer, rationale, Subset((passage(0),)), span, span, unknown, -2.0)
    contained = LogprobSpan(-3.0, 3) if yes is not None else None
    return Verdict(draft, Scores(0.0), yes is not None, yes, contained)


def test_features_say_what_they_are_called() -> None:
    chosen = verdict("0")
    others = [chosen, verdict("0."), verdict("7"), verdict("unknown", yes=None, unknown=True)]
    found = dict(zip(FEATURES, features(chosen, others) or (), strict=True))
    assert found == pytest.approx(
        {
            "one": 1.0,
            "log_odds_yes": math.log(4),
            "answer_logprob": -0.2,
            "self_containment": -1.0,
            "agreement": 2 / 3,
            "known": 3 / 4,
            "unknown_logprob": -2.0,
        }
    )
    assert features(verdict("0", yes=None), others) is None


def test_features_of_a_reading_say_what_they_are_called() -> None:
    said = (("7", False, -1.0), ("8.", False, -3.0), ("x", True, -0.5))
    drafts = [
        dataclasses.replace(verdict(a, unknown=u).draft, unknown_logprob=none)
        for a, u, none in said
    ]
    found = reading_features("8", 0.8, drafts, whole=True)
    assert dict(zip(READING_FEATURES, found, strict=True)) == pytest.approx(
        {
            "one": 1.0,
            "log_odds": math.log(4),
            "agreement": 1.0,
            "unknown_logprob": -3.0,
            "whole": 1.0,
            "undrafted": 0.0,
        }
    )
    assert reading_features("x", 1.0, drafts, whole=False)[1:3] == (6.0, 0.0)
    assert reading_features("x", 0.5, [], whole=True)[1:] == (0.0, 0.0, 0.0, 1.0, 1.0)


def test_a_reading_without_weights_has_its_own_probability() -> None:
    assert reading_confidence("8", 0.7, [], whole=True) == 0.7
    believed = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert reading_confidence("8", 0.7, [], believed, whole=True) == pytest.approx(0.7)


def test_weights_make_a_probability_that_support_can_only_lower() -> None:
    chosen = verdict("0")
    assert confidence(chosen) == pytest.approx(0.8)
    weights = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert confidence(chosen, [chosen], weights) == pytest.approx(0.8)
    sceptical = (-2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert confidence(chosen, [chosen], sceptical) < 0.4
    made_up = verdict("Zanzibar", rationale="Elephants invented jazz")
    assert confidence(made_up, [made_up], (50.0, 0, 0, 0, 0, 0, 0)) < 0.05
    alone = verdict("0", yes=None)
    assert confidence(alone, [alone], weights) == pytest.approx(math.exp(-0.2))


logprobs = st.floats(-30, 0)


@given(
    st.lists(st.tuples(st.sampled_from("079"), logprobs, st.booleans()), min_size=1, max_size=5),
    st.lists(st.floats(-10, 10), min_size=7, max_size=7),
    st.floats(0, 1),
    logprobs,
)
def test_no_verdict_is_above_the_ceiling(
    made: list[tuple[str, float, bool]], weights: list[float], yes: float, contained: float
) -> None:
    """Whatever the verifier would say, the confidence stays at or below what was promised."""
    drafts = [
        Draft(answer, f"Fact number {answer} is here", Subset((passage(0),)), span, span, unknown)
        for answer, logprob, unknown in made
        for span in (LogprobSpan(logprob, 1),)
    ]
    unread = [Verdict(d, Scores(0.0), False) for d in drafts]
    chosen = Verdict(drafts[0], Scores(0.0), True, yes, LogprobSpan(contained, 1))
    most = ceiling(drafts[0], drafts, tuple(weights))
    assert confidence(chosen, [chosen, *unread[1:]], tuple(weights)) <= most
    assert confidence(unread[0], unread, tuple(weights)) <= most
    assert confidence(chosen, [chosen, *unread[1:]]) <= ceiling(drafts[0], drafts, ())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("Bern", "bern"), 1.0),
        (("Bern", "Basel"), 0.0),
        (("no", "no"), 0.0),  # two of two possible answers
        (("Bern", "unknown"), 0.0),
    ],
)
def test_drafts_agree_when_they_name_the_same(answers: tuple[str, str], expected: float) -> None:
    span = LogprobSpan(-0.2, 2)
    drafts = [
        Draft(a, "", Subset(()), span, span, unknown=a == "unknown", unknown_logprob=-1.0)
        for a in answers
    ]
    one, known, answer, agreement, unrivalled = draft_features(drafts[0], drafts)
    assert (one, answer, agreement) == (1.0, pytest.approx(-0.2), expected)
    rival = math.exp(-0.2) if answers == ("Bern", "Basel") else 0.0
    assert unrivalled == pytest.approx(1.0 - rival)
    p = math.exp(-1.0)
    assert known == pytest.approx(math.log((1 - p) / p))
    alike = draft_confidence(drafts[0], drafts, (0.0, 0.0, 0.0, 2.0))
    assert alike <= (1 / (1 + math.exp(-2.0)) if expected else 0.5)


def test_drafts_of_one_subset_neither_bear_each_other_out_nor_rival() -> None:
    span = LogprobSpan(-0.2, 2)

    def draft(passage: str) -> Draft:
        subset = Subset((Passage(id=passage, document="d.txt", title="", text="Bern."),))
        return Draft("Bern", "", subset, span, span)

    one, twin, other = draft("a"), draft("a"), draft("b")
    assert not borne_out(one, [one, twin])
    assert borne_out(one, [one, twin, other])
    alternative = dataclasses.replace(twin, answer="Basel")
    rival = dataclasses.replace(other, answer="Basel")
    assert draft_features(one, [one, alternative])[-1] == 1.0
    assert draft_features(one, [one, rival])[-1] == pytest.approx(1.0 - math.exp(-0.2))


def test_settings_are_those_of_exactly_the_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "path", lambda: tmp_path / "calibration.json")
    a, b = Path("/x/a.gguf"), Path("/y/b.gguf")
    assert calibration.settings_for(a, b) == {}
    pair = {
        "drafter": "a.gguf",
        "verifier": "b.gguf",
        "confidence_weights": [0.0, 1, 2, 3, 4, 5, 6],
        "repair_below": 0.6,
        "drafts": {"answers": 3},
    }
    (tmp_path / "calibration.json").write_text(json.dumps({"pairs": [pair]}))
    found = calibration.settings_for(a, b)
    assert found == {"confidence_weights": (0.0, 1, 2, 3, 4, 5, 6), "repair_below": 0.6}
    assert Config.from_mapping(found).repair_below == 0.6
    assert calibration.settings_for(b, a) == {}
    # What a drafter was taught holds beside every verifier.
    taught = {"a.gguf": {"draft_form": "answer-first"}}
    (tmp_path / "calibration.json").write_text(json.dumps({"pairs": [pair], "drafters": taught}))
    assert calibration.settings_for(a, b) == {**found, "draft_form": "answer-first"}
    assert calibration.settings_for(a, Path("c.gguf")) == {"draft_form": "answer-first"}
    assert calibration.settings_for(b, a) == {}
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(ConfigError, match="install the package again"):
        calibration.settings_for(a, b)


def test_a_wrong_number_of_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="confidence_weights must be 7"):
        Config(confidence_weights=(1.0,))
    with pytest.raises(ConfigError, match="reading_weights must be 6"):
        Config(reading_weights=(1.0,))
